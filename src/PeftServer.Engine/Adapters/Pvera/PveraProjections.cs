using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Pvera;

/// <summary>The random A [2r, widest in] and B [widest out, r] that all modules of a PVeRA adapter share.</summary>
internal sealed class PveraProjections : SharedWeights
{
    private readonly PveraConfig _config;
    private readonly Weight pvera_A;
    private readonly Weight pvera_B;

    public PveraProjections(PveraConfig config, IReadOnlyList<Projection> sites)
    {
        _config = config;
        pvera_A = new Weight(2 * config.R, sites.Max(site => site.InFeatures)) { IsBuffer = true };
        pvera_B = new Weight(sites.Max(site => site.OutFeatures), config.R) { IsBuffer = true };
    }

    public override IEnumerable<(string Key, Weight Weight)> State =>
        _config.SaveProjection ? [("base_model.pvera_A", pvera_A), ("base_model.pvera_B", pvera_B)] : [];

    public override IEnumerable<Weight> Derived => [pvera_A, pvera_B];

    public Tensor A(int inFeatures) => pvera_A.Value.narrow(1, 0, inFeatures);

    public Tensor B(int outFeatures) => pvera_B.Value.narrow(0, 0, outFeatures);

    public override void Initialize(PretrainedModel model, Generator generator) => Draw(model.Device);

    public override void Prepare(PretrainedModel model)
    {
        if (!_config.SaveProjection)
        {
            Draw(model.Device);
        }
    }

    private void Draw(Device device)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)_config.ProjectionPrngKey);
        foreach (var weight in new[] { pvera_A, pvera_B })
        {
            var bound = Math.Sqrt(3) * (Math.Sqrt(2) / Math.Sqrt(weight.Shape[1]));
            weight.Set(empty([.. weight.Shape]).uniform_(-bound, bound, generator).to(device));
        }
    }
}
