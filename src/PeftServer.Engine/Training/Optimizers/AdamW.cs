using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// AdamW in one fused call a group. <see href="https://arxiv.org/abs/1711.05101"/>; with AMSGrad (<see href="https://openreview.net/forum?id=ryQu7f-RZ"/>) the
/// highest second moment so far counts; decay added to the gradient instead is the older Adam (<see href="https://arxiv.org/abs/1412.6980"/>).
/// </summary>
public sealed class AdamW : Optimizer
{
    private readonly (double Beta1, double Beta2) _betas;
    private readonly double _eps;
    private readonly bool _decaysGradient;
    private readonly Tensor? _highest;

    /// <summary>All of <paramref name="weights"/> alike.</summary>
    public AdamW(IEnumerable<Weight> weights, double beta1, double beta2, double eps, double weightDecay)
        : this([new ParameterGroup([.. weights], 1, weightDecay)], beta1, beta2, eps)
    {
    }

    public AdamW(IReadOnlyList<ParameterGroup> groups, double beta1, double beta2, double eps, bool amsgrad = false, bool decaysGradient = false)
        : base(groups)
    {
        (_betas, _eps, _decaysGradient) = ((beta1, beta2), eps, decaysGradient);
        FirstMoment = FlatState("exp_avg");
        SecondMoment = FlatState("exp_avg_sq");
        _highest = amsgrad ? FlatState("max_exp_avg_sq") : null;
    }

    public Tensor FirstMoment { get; }

    public Tensor SecondMoment { get; }

    protected override void Update(ParameterSlice slice)
    {
        if (!_decaysGradient)
        {
            Aten.FusedAdamW(
                slice.Value, slice.Gradient, slice.Of(FirstMoment), slice.Of(SecondMoment), _highest is null ? null : slice.Of(_highest), StepCount,
                slice.LearningRate, _betas.Beta1, _betas.Beta2, slice.WeightDecay, _eps);
            return;
        }

        slice.Gradient.Add(slice.Value, slice.WeightDecay);
        Aten.FusedAdamW(
            slice.Value, slice.Gradient, slice.Of(FirstMoment), slice.Of(SecondMoment), _highest is null ? null : slice.Of(_highest), StepCount,
            slice.LearningRate, _betas.Beta1, _betas.Beta2, 0, _eps);
    }
}
