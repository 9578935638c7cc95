using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// Lion (<see href="https://arxiv.org/abs/2302.06675"/>): p ← p·(1 − lr·decay) − lr·sign(β₁·m + (1 − β₁)·g), then m ← β₂·m + (1 − β₂)·g.
/// One moment, so half of AdamW's state; take a third of its learning rate.
/// </summary>
public sealed class Lion : Optimizer
{
    private readonly (double Beta1, double Beta2) _betas;
    private readonly Tensor _moment;

    public Lion(IReadOnlyList<ParameterGroup> groups, double beta1 = 0.9, double beta2 = 0.99)
        : base(groups) => (_betas, _moment) = ((beta1, beta2), FlatState("exp_avg"));

    protected override void Update(ParameterSlice slice)
    {
        var moment = slice.Of(_moment);
        var direction = moment.Times(_betas.Beta1).Plus(slice.Gradient.Times(1 - _betas.Beta1)).sign();
        slice.Value.Scale(1 - (slice.LearningRate * slice.WeightDecay)).Add(direction, -slice.LearningRate);
        moment.Scale(_betas.Beta2).Add(slice.Gradient, 1 - _betas.Beta2);
    }
}
