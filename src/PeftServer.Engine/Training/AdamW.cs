using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training;

/// <summary>
/// AdamW over one flat float32 buffer: every trained weight becomes a view of it, and so does its gradient, so that a step is
/// one fused call and the norm of all gradients one reduction. <see href="https://arxiv.org/abs/1711.05101"/>
/// </summary>
public sealed class AdamW : IDisposable
{
    private readonly List<Weight> _weights;
    private readonly Tensor _gradients;
    private readonly (double Beta1, double Beta2) _betas;
    private readonly double _eps;
    private readonly double _weightDecay;

    /// <summary>Moves <paramref name="weights"/> (float32, on one device) into the flat buffer. They must require gradients by now.</summary>
    public AdamW(IEnumerable<Weight> weights, double beta1, double beta2, double eps, double weightDecay)
    {
        (_weights, _betas, _eps, _weightDecay) = ([.. weights], (beta1, beta2), eps, weightDecay);
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var device = _weights[0].Value.device;
        Parameters = cat([.. _weights.Select(weight => weight.Value.detach().to(ScalarType.Float32).flatten())]).DetachFromDisposeScope();
        _gradients = zeros_like(Parameters).DetachFromDisposeScope();
        FirstMoment = zeros_like(Parameters).DetachFromDisposeScope();
        SecondMoment = zeros_like(Parameters).DetachFromDisposeScope();
        StepCount = zeros([], dtype: ScalarType.Float32, device: device).DetachFromDisposeScope();

        var at = 0L;
        foreach (var weight in _weights)
        {
            var shape = weight.Shape.ToArray();
            var view = Parameters.narrow(0, at, weight.ElementCount).view(shape).detach();
            view.requires_grad = true;
            weight.Set(view);
            weight.Value.grad = _gradients.narrow(0, at, weight.ElementCount).view(shape); // backward adds to it in place
            at += weight.ElementCount;
        }
    }

    /// <summary>All trained weights, one after another.</summary>
    public Tensor Parameters { get; }

    public Tensor FirstMoment { get; }

    public Tensor SecondMoment { get; }

    /// <summary>Steps taken, as a float32 scalar on the device.</summary>
    public Tensor StepCount { get; }

    /// <summary>
    /// Scales all gradients so that their norm is at most <paramref name="maxNorm"/> (0: no clipping); gives the norm before, as a
    /// scalar on the device.
    /// </summary>
    public Tensor ClipGradients(double maxNorm)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var norm = _gradients.norm();
        if (maxNorm > 0)
        {
            using var limit = maxNorm.ToScalar();
            using var little = 1e-6.ToScalar();
            var factor = full_like(norm, limit).div(norm.add(little)).clamp_max(TensorArithmetic.One);
            _gradients.mul_(factor);
        }

        return norm.MoveToOuterDisposeScope();
    }

    /// <summary>One update at <paramref name="learningRate"/>.</summary>
    public void Step(double learningRate)
    {
        using var frozen = no_grad();
        StepCount.add_(TensorArithmetic.One);
        Aten.FusedAdamW(Parameters, _gradients, FirstMoment, SecondMoment, StepCount, learningRate, _betas.Beta1, _betas.Beta2, _weightDecay, _eps);
    }

    public void ZeroGrad() => _gradients.zero_();

    public void Dispose()
    {
        _gradients.Dispose();
        FirstMoment.Dispose();
        SecondMoment.Dispose();
        StepCount.Dispose();
        Parameters.Dispose();
    }
}
