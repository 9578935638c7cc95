using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// Bytes that a batch takes in the hand-written step beside the weights, tensor by tensor as <see cref="FastLlamaStep"/> makes them: what the blocks keep, and the most that
/// is alive with it at one time, in the forward of the last block, at the head, or in a backward.
/// </summary>
internal sealed class StepMemory
{
    /// <summary>Workspaces of cuBLAS and cuDNN, angles, ids, what a GPU's allocator rounds up; code and tables on a CPU have their own place in an estimate.</summary>
    private const long Workspaces = 64 << 20;

    private const int Float = sizeof(float);

    private readonly FastDecoder _model;
    private readonly BaseQuantization _quantization;
    private readonly bool _onGpu;
    private readonly double _element;
    private readonly (int Qkv, int Out, int GateUp, int Down) _ranks; // beside each product's input

    /// <param name="model">Shapes will do.</param>
    /// <param name="adapter">The LoRA that trains.</param>
    /// <param name="quantization">How the blocks' matrices are held.</param>
    public StepMemory(FastDecoder model, Adapter adapter, BaseQuantization quantization)
    {
        (_model, _quantization, _onGpu) = (model, quantization, model.Model.Device.type is DeviceType.CUDA);
        _element = model.Model.Dtype is ScalarType.Float32 ? Float : 2;
        var parts = adapter.Parts.ToLookup(entry => entry.Site, entry => entry.Part);
        int Widest(Func<FastBlock, IEnumerable<Projection>> sites) => model.Blocks.Max(block =>
            FoldedProjection.RankWidthOf(sites(block).SelectMany(site => parts[site]).OfType<LoraProjection>().Sum(part => part.Rank), model.Model.Device));
        _ranks = (Widest(block => block.Qkv), Widest(block => [block.O]), Widest(block => block.GateUp), Widest(block => block.Down is { } down ? [down] : []));
    }

    private double Hidden => _model.Hidden;

    private double QueryWidth => _model.Heads.QueryWidth;

    private double HeadsWidth => _model.Heads.Width;

    private FastBlock Block => _model.Blocks[0];

    private int Experts => _model.ExpertsPerToken;

    /// <summary>Columns of a gradient's rows beside their own: 8-bit products take none.</summary>
    private double Room(int ranks) => _quantization is BaseQuantization.Fp8 ? 0 : ranks;

    /// <summary>Bytes of the LoRA as it lies beside the frozen matrices.</summary>
    public double RankBytes => _element * _model.Blocks.Sum(block =>
        Beside(block.Qkv, _ranks.Qkv) + Beside([block.O], _ranks.Out) + (block.Down is { } down ? Beside(block.GateUp, _ranks.GateUp) + Beside([down], _ranks.Down) : 0));

    /// <summary>Bytes beside the weights while a batch goes through the model as planned.</summary>
    public double Of(ActivationPlan plan, BatchShape batch)
    {
        double longest = batch.Lengths.Max();
        var tokens = Math.Min(batch.TokenCount, Math.Max(plan.PassTokens, longest)); // at once
        var keeps = plan.Mode is ActivationMode.Keep;
        var kept = tokens * _model.Blocks.Count * (plan.Mode is ActivationMode.Offload ? 0 : keeps ? KeptInBlock : Hidden * _element);
        var work = Math.Max(Head(tokens, batch.Scored, keeps), keeps ? Math.Max(Forward(tokens), Backward(tokens, longest)) : BackwardAgain(tokens, longest, plan.Mode is ActivationMode.Offload));
        return kept + work + Decoded(tokens) + (_onGpu ? Workspaces : 0);
    }

    private static double Beside(IReadOnlyList<Projection> sites, int ranks) => (double)ranks * (sites.Sum(site => site.OutFeatures) + sites[0].InFeatures + ranks);

    /// <summary>What a block leaves behind of a token where all is kept: <see cref="LayerState"/>.</summary>
    private double KeptInBlock => ((Block.IsParallel ? 1 : 2) * Hidden * _element) + KeptInAttention + KeptInFeedForward;

    /// <summary><see cref="AttentionPart"/>: rows [q | k | v], the answer of the heads, and what norms have to know.</summary>
    private double KeptInAttention => (_element * (HeadsWidth + QueryWidth + _ranks.Qkv + _ranks.Out + (Block.QueryNorm is null ? 0 : QueryWidth + _model.Heads.KeyValueWidth)
        + (Block.AttentionEnd.Norm is null ? 0 : Hidden))) + (Float * (_model.Heads.QueryHeads + 1));

    /// <summary><see cref="MlpState"/> or <see cref="ExpertState"/>.</summary>
    private double KeptInFeedForward => Experts > 0
        ? (_element * ((2 * _model.Intermediate) + Experts)) + (Float * Block.Experts!.Shape.Count) + (Experts * (Float + (3 * sizeof(long))))
        : (_element * (((Block.IsGated ? 2 : 1) * _model.Intermediate) + Room(_ranks.GateUp) + _ranks.GateUp + _ranks.Down + (Block.MlpEnd.Norm is null ? 0 : Hidden))) + Float;

    /// <summary>In the forward of the last block: the answer before it, attention's and its own, and the feed-forward at its widest.</summary>
    private double Forward(double tokens) => tokens * _element * ((3 * Hidden) + (Experts > 0
        ? (Experts * Hidden) + _model.Intermediate // each expert's answer, and what it is made of
        : _model.Intermediate + _ranks.Down));

    /// <summary>
    /// At the head: the last answer, its sum, the norm of it and that one's gradient; with the scores of so many tokens at a time, or the gradient that goes down. On a CPU
    /// the loss makes float32 rows beside the scores.
    /// </summary>
    private double Head(double tokens, int scored, bool keeps)
    {
        double chunk = Math.Min(scored, keeps ? FastLlamaStep.ScoredAtOnce : FastLlamaStep.ScoredAtOnceLean);
        var scores = chunk * ((_model.Head.OutFeatures * (_element + (_onGpu ? 0 : 2 * Float))) + (2 * Hidden * _element));
        return (tokens * _element * ((keeps ? 4 : 5) * Hidden)) + Math.Max(scores, tokens * _element * GradientRow);
    }

    private double GradientRow => Hidden + Room(Math.Max(_ranks.Out, _ranks.Down));

    /// <summary>In the backward of the last block, with all of its state: gradients of its output and of its middle, and those of one part at work.</summary>
    private double Backward(double tokens, double longest) => (tokens * _element * GradientRow * (EndIsNormed ? 3 : 2))
        + Math.Max(BackwardOfFeedForward(tokens), BackwardOfAttention(tokens, longest));

    /// <summary>The same where the block is computed again first, its feed-forward so many rows at a time.</summary>
    private double BackwardAgain(double tokens, double longest, bool loadsInput)
    {
        var piece = Math.Min(tokens, ActivationPlan.LeanTokens);
        var again = tokens * (KeptInAttention + (_element * (loadsInput ? 3 : 2) * Hidden)); // attention, its answer, the middle
        return again + (tokens * _element * GradientRow * (EndIsNormed ? 3 : 2))
            + Math.Max((piece * KeptInFeedForward) + BackwardOfFeedForward(piece), BackwardOfAttention(tokens, longest));
    }

    private bool EndIsNormed => Block.MlpEnd.Norm is not null || Block.AttentionEnd.Norm is not null;

    /// <summary>The gated product and its gradient.</summary>
    private double BackwardOfFeedForward(double tokens) => tokens * _element * (Experts > 0
        ? (2 * Experts * Hidden) + (2 * _model.Intermediate) // gradients of each expert's answer and input, the product and its gradient
        : Math.Max((2 * _model.Intermediate) + _ranks.Down, Hidden + _ranks.GateUp));

    /// <summary>
    /// Gradients of the heads' answer, of q, k and v, of their rows and of the input. Flash attention on a GPU adds dq up in float32, and makes dk and dv once for each
    /// head that asks before it adds up those of a group; on a CPU it goes sequence by sequence.
    /// </summary>
    private double BackwardOfAttention(double tokens, double longest)
    {
        var heads = _model.Heads;
        var started = tokens * _element * (QueryWidth + _ranks.Out + HeadsWidth);
        var scope = Block.Scope;
        const double Filled = 1.5; // sequences are filled up to the longest of those they go with
        var within = scope.SoftCap is not null ? (2 * Filled * heads.QueryHeads * CappedAttention.Chunk * tokens * _element) + (2 * Float * heads.KeyValueWidth * tokens) // scores and their gradients
            : _onGpu ? tokens * QueryWidth * (Float + (heads.KeyValueHeads < heads.QueryHeads ? 2 * _element : 0))
            : longest * QueryWidth * 8 * _element;
        var normed = _onGpu || Block.QueryNorm is null ? 0 : 6 * Float * (QueryWidth + heads.KeyValueWidth); // in plain tensor code there
        return started + Math.Max(within, tokens * ((_element * (HeadsWidth + _ranks.Qkv)) + Math.Max(normed, _element * Hidden)));
    }

    /// <summary>Weights that are unpacked for one product: 4-bit ones whole; 8-bit ones turned, with the rows coded beside them.</summary>
    private double Decoded(double tokens)
    {
        var stacks = _model.Blocks.SelectMany(block => new[] { block.Qkv, [block.O], block.GateUp, block.Down is { } down ? [down] : [] }).Where(sites => sites.Count > 0)
            .Select(sites => (Rows: (double)sites.Sum(site => site.OutFeatures), Columns: (double)sites[0].InFeatures)).Distinct();
        return _quantization switch
        {
            BaseQuantization.Nf4 => stacks.Max(stack => stack.Rows * stack.Columns * _element),
            BaseQuantization.Fp8 => stacks.Max(stack => (stack.Rows * stack.Columns) + (tokens * Math.Max(stack.Rows, stack.Columns))),
            _ => 0,
        };
    }
}
