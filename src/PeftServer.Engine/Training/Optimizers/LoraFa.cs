using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// LoRA-FA (<see href="https://arxiv.org/abs/2308.03303"/>) as in PEFT: A stays as it was drawn, and B's gradient becomes the one nearest to full fine-tuning,
/// g·(A·Aᵀ + 10⁻⁸)⁺/s², s the layer's own scaling. Then Adam with ε outside of the bias correction, and the decay after it.
/// </summary>
public sealed class LoraFa : Optimizer
{
    private readonly (double Beta1, double Beta2) _betas;
    private readonly double _eps;
    private readonly Tensor _first;
    private readonly Tensor _second;
    private readonly Dictionary<string, LoraPair> _pairs;

    /// <param name="groups">What trains: no A of a pair.</param>
    /// <param name="pairs">The pairs whose B trains.</param>
    /// <param name="beta1">Decay of the first moment.</param>
    /// <param name="beta2">Decay of the second moment.</param>
    /// <param name="eps">Added to the root of the second moment.</param>
    public LoraFa(IReadOnlyList<ParameterGroup> groups, IEnumerable<LoraPair> pairs, double beta1 = 0.9, double beta2 = 0.999, double eps = 1e-6)
        : base(groups)
    {
        (_betas, _eps) = ((beta1, beta2), eps);
        (_first, _second) = (FlatState("exp_avg"), FlatState("exp_avg_sq"));
        _pairs = pairs.ToDictionary(pair => pair.B.Path);
    }

    protected override bool IsPerWeight => true;

    protected override void Update(ParameterSlice slice)
    {
        var gradient = slice.Gradient;
        if (_pairs.TryGetValue(slice.Name, out var pair))
        {
            var a = pair.A.Value.to(ScalarType.Float32);
            var gram = a.mm(a.t()).Plus(eye(a.size(0), device: a.device).Times(1e-8)); // [r, r]
            gradient = gradient.mm(linalg.pinv(gram)).Times(1 / (pair.Scaling * pair.Scaling));
        }

        var first = slice.Of(_first).Scale(_betas.Beta1).Add(gradient, 1 - _betas.Beta1);
        var second = slice.Of(_second).Scale(_betas.Beta2).Add(gradient.square(), 1 - _betas.Beta2);
        var rate = slice.LearningRate * Math.Sqrt(1 - Math.Pow(_betas.Beta2, Steps)) / (1 - Math.Pow(_betas.Beta1, Steps));
        slice.Value.Add(first.div(second.sqrt().Plus(_eps)), -rate);
        slice.Value.Scale(1 - (slice.LearningRate * slice.WeightDecay));
    }
}

/// <summary>The two matrices of a LoRA layer, and the factor of their product.</summary>
public sealed record LoraPair(Weight A, Weight B, double Scaling);
