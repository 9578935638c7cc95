using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// AdamW after Riemannian preconditioning of LoRA (<see href="https://arxiv.org/abs/2402.02347"/>) as in PEFT: gA ← (BᵀB + ρ)⁻¹·gA, gB ← gB·(AAᵀ + ρ)⁻¹, both
/// from the weights before the step, so that learning does not depend on how the product is shared between A and B.
/// </summary>
public sealed class RiemannianAdamW : Optimizer
{
    private readonly (double Beta1, double Beta2) _betas;
    private readonly double _eps;
    private readonly double _regularization;
    private readonly Tensor _first;
    private readonly Tensor _second;
    private readonly Dictionary<string, LoraPair> _pairs = [];
    private readonly Dictionary<string, Tensor> _inverses = [];

    public RiemannianAdamW(
        IReadOnlyList<ParameterGroup> groups, IEnumerable<LoraPair> pairs, double beta1 = 0.9, double beta2 = 0.999, double eps = 1e-8, double regularization = 1e-2)
        : base(groups)
    {
        (_betas, _eps, _regularization) = ((beta1, beta2), eps, regularization);
        (_first, _second) = (FlatState("exp_avg"), FlatState("exp_avg_sq"));
        foreach (var pair in pairs)
        {
            (_pairs[pair.A.Path], _pairs[pair.B.Path]) = (pair, pair);
        }
    }

    protected override bool IsPerWeight => true;

    protected override void Update(ParameterSlice slice)
    {
        if (_pairs.TryGetValue(slice.Name, out var pair))
        {
            // The first of a pair changes it, so both inverses are made before, and the second's outlives this update.
            if (!_inverses.ContainsKey(slice.Name))
            {
                _inverses[pair.A.Path] = Inverse(pair.B.Value.t()).MoveToOuterDisposeScope();
                _inverses[pair.B.Path] = Inverse(pair.A.Value).MoveToOuterDisposeScope();
            }

            _inverses.Remove(slice.Name, out var inverse);
            slice.Gradient.copy_(slice.Name == pair.A.Path ? inverse!.mm(slice.Gradient) : slice.Gradient.mm(inverse!));
        }

        Aten.FusedAdamW(
            slice.Value, slice.Gradient, slice.Of(_first), slice.Of(_second), null, StepCount,
            slice.LearningRate, _betas.Beta1, _betas.Beta2, slice.WeightDecay, _eps);
    }

    /// <summary>(X·Xᵀ + ρ)⁻¹ for X [r, n].</summary>
    private Tensor Inverse(Tensor x) => linalg.inv(x.mm(x.t()).Plus(eye(x.size(0), device: x.device).Times(_regularization)));
}
