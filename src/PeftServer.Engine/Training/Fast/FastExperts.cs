using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// The feed-forward of a block that sends each token through a few of many experts: norm, router, experts. All of it is frozen; the
/// backward is for what is below.
/// </summary>
internal sealed class FastExperts : FastFeedForward
{
    private readonly SparseMoe _experts;
    private readonly GateForm _gate;
    private readonly BlockKernels _kernels;
    private readonly NormWeights _norm;
    private readonly KeptScalar _perToken;

    public FastExperts(FastBlock block, BlockKernels kernels)
    {
        (_experts, _gate, _kernels) = (block.Experts!, block.Gate, kernels);
        _norm = NormWeights.Of(block.MiddleNorm);
        _perToken = new KeptScalar((long)Shape.PerToken);
    }

    private ExpertShape Shape => _experts.Shape;

    private Tensor GateUp => _experts.experts.gate_up_proj.Weight.Value; // [E, 2F, hidden]

    private Tensor Down => _experts.experts.down_proj.Weight.Value; // [E, hidden, F]

    private Tensor Router => _experts.gate.weight.Weight.Value; // [E, hidden]

    public override FeedForwardState Forward(Tensor x, Tensor? delta, Tensor? sum, Tensor answer)
    {
        using var scope = NewDisposeScope();
        var state = Open(x, delta, sum);
        var hidden = empty([state.GateUp.size(0), Shape.Intermediate], dtype: x.dtype, device: x.device); // [n·k, F]
        _kernels.Gate(_gate, state.GateUp, hidden);
        var outputs = _kernels.GroupedProduct(hidden, Down, turned: true, state.Ends); // [n·k, hidden]
        answer.zero_();
        answer.index_add_(0, state.Tokens, outputs.mul_(state.SharesInOrder), TensorArithmetic.One);
        state.MoveToOuterScope();
        return state;
    }

    public override void Backward(Tensor gradRows, Tensor input, FeedForwardState? kept, Tensor residual, Tensor dInput)
    {
        using var scope = NewDisposeScope();
        var state = (ExpertState?)kept ?? Open(input, null, null);
        var grad = gradRows.narrow(1, 0, input.size(1)).index_select(0, state.Tokens); // [n·k, hidden]
        var hidden = empty([state.GateUp.size(0), Shape.Intermediate], dtype: input.dtype, device: input.device); // [n·k, F]
        _kernels.Gate(_gate, state.GateUp, hidden);
        var dHidden = _kernels.GroupedProduct(grad, Down, turned: false, state.Ends); // [n·k, F], of one whole share
        var dShares = RowDots(dHidden, hidden); // [n·k]
        _kernels.GateBackward(_gate, dHidden.mul_(state.SharesInOrder), state.GateUp, hidden);
        var dInputs = _kernels.GroupedProduct(state.GateUp, GateUp, turned: false, state.Ends); // [n·k, hidden]
        var dNormed = BackwardRouter(dShares, state).index_add_(0, state.Tokens, dInputs, TensorArithmetic.One); // [n, hidden]
        _kernels.NormBackward(dNormed, input, _norm, state.Stats, residual, dInput);
    }

    public override void Dispose() => _norm.Dispose();

    /// <summary>Norm, router, and the wide products of each token's experts, expert by expert.</summary>
    private ExpertState Open(Tensor x, Tensor? delta, Tensor? sum)
    {
        using var scope = NewDisposeScope();
        var (normed, stats) = (empty(x.shape, dtype: x.dtype, device: x.device), _norm.NewStats(x.size(0), x.device));
        _kernels.AddNorm(x, delta, _norm, sum, normed, stats);
        var scores = normed.mm(Router.t()).softmax(-1, ScalarType.Float32); // [n, E]
        var (shares, chosen) = scores.topk(Shape.PerToken, -1); // [n, k]
        var order = chosen.flatten().argsort(0, false); // the n·k choices, expert by expert
        var tokens = order.floor_divide(_perToken); // [n·k]
        var ends = chosen.flatten().bincount(null, Shape.Count).cumsum(0, ScalarType.Int32); // [E]
        var taken = Shape.Normalizes ? shares.div(shares.sum(-1, keepdim: true)) : shares;
        var state = new ExpertState(stats, _kernels.GroupedProduct(normed.index_select(0, tokens), GateUp, turned: true, ends), scores, shares, chosen, order, tokens, ends)
        {
            SharesInOrder = taken.flatten().index_select(0, order).to(x.dtype).unsqueeze(1),
        };
        state.MoveToOuterScope();
        return state;
    }

    /// <summary>From the gradients of the shares, expert by expert, to that of the router's input: [n, hidden].</summary>
    private Tensor BackwardRouter(Tensor dShares, ExpertState state)
    {
        using var scope = NewDisposeScope();
        var d = empty_like(dShares).index_copy_(0, state.Order, dShares).view(state.Shares.shape); // [n, k]
        if (Shape.Normalizes)
        {
            var sum = state.Shares.sum(-1, keepdim: true);
            d = d.Minus(d.mul(state.Shares).sum(-1, keepdim: true).div(sum)).div(sum);
        }

        var dScores = zeros_like(state.Scores).scatter_(1, state.Chosen, d);
        var logits = dScores.Minus(dScores.mul(state.Scores).sum(-1, keepdim: true)).mul(state.Scores); // of the softmax's input
        return logits.to(Router.dtype).mm(Router).MoveToOuterDisposeScope();
    }

    private static Tensor RowDots(Tensor a, Tensor b)
    {
        using var scope = NewDisposeScope();
        return a.to(ScalarType.Float32).mul(b).sum(-1).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// The norm's factors, the rows [gate | up] of all choices, expert by expert, the router's scores of all experts in float32, those of the
/// chosen ones and their indices, the order of the choices, the token of each, and where the rows of each expert end.
/// </summary>
internal sealed record ExpertState(
    Tensor Stats, Tensor GateUp, Tensor Scores, Tensor Shares, Tensor Chosen, Tensor Order, Tensor Tokens, Tensor Ends) : FeedForwardState
{
    /// <summary>What each choice weighs: [n·k, 1].</summary>
    public required Tensor SharesInOrder { get; init; }

    protected override IEnumerable<Tensor?> All => [Stats, GateUp, Scores, Shares, Chosen, Order, Tokens, Ends, SharesInOrder];
}
