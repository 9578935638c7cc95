using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Vera;

/// <summary>The random A [r, widest in] and B [widest out, r] that all modules of a VeRA adapter share; a module uses a corner of each.</summary>
internal sealed class VeraProjections : SharedWeights
{
    private readonly VeraConfig _config;
    private readonly Weight vera_A;
    private readonly Weight vera_B;

    public VeraProjections(VeraConfig config, IReadOnlyList<Projection> sites)
    {
        _config = config;
        vera_A = new Weight(config.R, sites.Max(site => site.InFeatures)) { IsBuffer = true };
        vera_B = new Weight(sites.Max(site => site.OutFeatures), config.R) { IsBuffer = true };
    }

    public override IEnumerable<(string Key, Weight Weight)> State =>
        _config.SaveProjection ? [("base_model.vera_A", vera_A), ("base_model.vera_B", vera_B)] : [];

    public override IEnumerable<Weight> Derived => [vera_A, vera_B];

    public Tensor A(int inFeatures) => vera_A.Value.narrow(1, 0, inFeatures);

    public Tensor B(int outFeatures) => vera_B.Value.narrow(0, 0, outFeatures);

    public override void Initialize(PretrainedModel model, Generator generator) => Draw(model.Device);

    public override void Prepare(PretrainedModel model)
    {
        if (!_config.SaveProjection)
        {
            Draw(model.Device);
        }
    }

    // As PEFT draws: A before B from one generator, uniform within √3·√2/√fan_in.
    private void Draw(Device device)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)_config.ProjectionPrngKey);
        foreach (var weight in new[] { vera_A, vera_B })
        {
            var bound = Math.Sqrt(3) * (Math.Sqrt(2) / Math.Sqrt(weight.Shape[1]));
            weight.Set(empty([.. weight.Shape]).uniform_(-bound, bound, generator).to(device));
        }
    }
}
