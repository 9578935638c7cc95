using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// Muon (<see href="https://kellerjordan.github.io/posts/muon/"/>): the momentum of a matrix made nearly orthogonal by five Newton-Schulz iterations. As in
/// torch, but in float32: the buffer is lerp(b, g, 1 − μ), Nesterov steps by lerp(g, b, μ), decay comes first, and the rate is times
/// √max(1, rows/columns), or 0.2·√max(rows, columns) (<see href="https://arxiv.org/abs/2502.16982"/>), which suits AdamW's learning rates.
/// </summary>
public sealed class Muon : Optimizer
{
    private const int Iterations = 5;
    private static readonly (double A, double B, double C) Coefficients = (3.4445, -4.775, 2.0315);

    private readonly double _momentum;
    private readonly bool _nesterov;
    private readonly bool _matchesAdamW;
    private readonly Tensor _buffer;

    public Muon(IReadOnlyList<ParameterGroup> groups, double momentum = 0.95, bool nesterov = true, bool matchesAdamW = false)
        : base(groups)
    {
        (_momentum, _nesterov, _matchesAdamW) = (momentum, nesterov, matchesAdamW);
        _buffer = FlatState("momentum_buffer");
        if (Groups.SelectMany(group => group.Weights).FirstOrDefault(weight => weight.Shape.Count != 2) is { } other)
        {
            throw new TrainingException($"optim: muon changes matrices alone, but {other} is none. Take adamw_torch.");
        }
    }

    protected override bool IsPerWeight => true;

    protected override void Update(ParameterSlice slice)
    {
        var buffer = slice.Of(_buffer).Scale(_momentum).Add(slice.Gradient, 1 - _momentum);
        var update = _nesterov ? slice.Gradient.Times(1 - _momentum).Plus(buffer.Times(_momentum)) : buffer;
        var (rows, columns) = ((double)slice.Shape[0], (double)slice.Shape[1]);
        var factor = _matchesAdamW ? 0.2 * Math.Sqrt(Math.Max(rows, columns)) : Math.Sqrt(Math.Max(1, rows / columns));
        slice.Value.Scale(1 - (slice.LearningRate * slice.WeightDecay)).Add(Orthogonal(update), -slice.LearningRate * factor);
    }

    private static Tensor Orthogonal(Tensor x)
    {
        var isTall = x.size(0) > x.size(1);
        x = isTall ? x.t() : x;
        x = x.div(x.norm().AtLeast(1e-7));
        for (var i = 0; i < Iterations; i++)
        {
            var gram = x.mm(x.t());
            var polynomial = gram.Times(Coefficients.B).Plus(gram.mm(gram).Times(Coefficients.C));
            x = x.Times(Coefficients.A).Plus(polynomial.mm(x));
        }

        return isTall ? x.t() : x;
    }
}
