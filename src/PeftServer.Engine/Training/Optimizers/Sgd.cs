using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// Stochastic gradient descent as in torch: decay is added to the gradient; b = μ·b + (1 − dampening)·g, b = g at first; Nesterov steps by g + μ·b
/// (<see href="https://proceedings.mlr.press/v28/sutskever13.html"/>).
/// </summary>
public sealed class Sgd : Optimizer
{
    private readonly double _momentum;
    private readonly double _dampening;
    private readonly bool _nesterov;
    private readonly Tensor? _buffer;

    public Sgd(IReadOnlyList<ParameterGroup> groups, double momentum = 0, double dampening = 0, bool nesterov = false)
        : base(groups)
    {
        (_momentum, _dampening, _nesterov) = (momentum, dampening, nesterov);
        _buffer = momentum > 0 ? FlatState("momentum_buffer") : null;
    }

    protected override void Update(ParameterSlice slice)
    {
        var gradient = slice.WeightDecay > 0 ? slice.Gradient.Plus(slice.Value.Times(slice.WeightDecay)) : slice.Gradient;
        if (_buffer is not null)
        {
            var buffer = slice.Of(_buffer);
            buffer.Scale(_momentum).Add(gradient, Steps == 1 ? 1 : 1 - _dampening);
            gradient = _nesterov ? gradient.Plus(buffer.Times(_momentum)) : buffer;
        }

        slice.Value.Add(gradient, -slice.LearningRate);
    }
}
