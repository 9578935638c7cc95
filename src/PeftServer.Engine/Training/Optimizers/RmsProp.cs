using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// RMSprop as in torch: v ← α·v + (1 − α)·g², steps by g/(√v + ε), with momentum by their running sum. Centred: v less the square of the running mean of g
/// (<see href="https://arxiv.org/abs/1308.0850"/>). Decay is added to the gradient.
/// </summary>
public sealed class RmsProp : Optimizer
{
    private readonly double _alpha;
    private readonly double _eps;
    private readonly double _momentum;
    private readonly Tensor _square;
    private readonly Tensor? _mean;
    private readonly Tensor? _buffer;

    public RmsProp(IReadOnlyList<ParameterGroup> groups, double alpha = 0.99, double eps = 1e-8, double momentum = 0, bool centered = false)
        : base(groups)
    {
        (_alpha, _eps, _momentum) = (alpha, eps, momentum);
        _square = FlatState("square_avg");
        _mean = centered ? FlatState("grad_avg") : null;
        _buffer = momentum > 0 ? FlatState("momentum_buffer") : null;
    }

    protected override void Update(ParameterSlice slice)
    {
        var gradient = slice.WeightDecay > 0 ? slice.Gradient.Plus(slice.Value.Times(slice.WeightDecay)) : slice.Gradient;
        var square = slice.Of(_square).Scale(_alpha).Add(gradient.square(), 1 - _alpha);
        if (_mean is not null)
        {
            var mean = slice.Of(_mean).Scale(_alpha).Add(gradient, 1 - _alpha);
            square = square.Minus(mean.square());
        }

        var step = gradient.div(square.sqrt().Plus(_eps));
        slice.Value.Add(_buffer is null ? step : slice.Of(_buffer).Scale(_momentum).Add(step), -slice.LearningRate);
    }
}
