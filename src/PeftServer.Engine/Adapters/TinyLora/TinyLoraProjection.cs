using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.TinyLora;

/// <summary>y += B(ΣvP)Ax at a projection.</summary>
internal sealed class TinyLoraProjection : LinearDelta
{
    private readonly TinyLoraConfig _config;
    private readonly Weight _v; // (u), of a group of modules
    private readonly int _number;
    private readonly Weight tinylora_A; // (r, in)
    private readonly Weight tinylora_B; // (out, r)
    private readonly Weight tinylora_P; // (u, r, r)

    private TinyLoraProjection(TinyLoraConfig config, Weight v, int number, Projection site)
    {
        (_config, _v, _number) = (config, v, number);
        var r = Math.Min(config.R, Math.Min(site.InFeatures, site.OutFeatures));
        tinylora_A = new Weight(r, site.InFeatures) { IsBuffer = true };
        tinylora_B = new Weight(site.OutFeatures, r) { IsBuffer = true };
        tinylora_P = new Weight(config.U, r, r) { IsBuffer = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => _config.SaveProjection
        ? [(nameof(tinylora_A), tinylora_A), (nameof(tinylora_B), tinylora_B), (nameof(tinylora_P), tinylora_P)]
        : [(nameof(tinylora_A), tinylora_A), (nameof(tinylora_B), tinylora_B)];

    public override IEnumerable<Weight> Derived => [tinylora_P];

    protected override double DropoutShare => _config.TinyloraDropout;

    public static MethodParts Create(TinyLoraConfig config, IReadOnlyList<Site> sites)
    {
        var groups = Math.Max(1, (int)Math.Round(sites.Count * (1 - config.WeightTying)));
        var size = Math.Max(1, sites.Count / groups);
        int GroupOf(int number) => Math.Min(number / size, groups - 1);
        var shared = new GroupVectors(config, GroupOf(sites.Count - 1) + 1);
        return new([.. sites.Select((site, i) => new TinyLoraProjection(config, shared.Of(GroupOf(i)), i, TargetedConfig.AsProjection(site)))], shared);
    }

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var mixed = tinylora_P.Value.mul(_v.Value.view(-1, 1, 1)).sum([0]).to(x.dtype); // [r, r]
        return F.linear(F.linear(F.linear(x, tinylora_A.Value.to(x.dtype)), mixed), tinylora_B.Value.to(x.dtype)); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var (u, s, vt) = LowRank.Svd(((Projection)site).DenseWeight());
        var r = tinylora_A.Shape[0];
        var root = s.narrow(0, 0, r).sqrt();
        tinylora_A.Set(LowRank.ScaleRows(vt.narrow(0, 0, r), root));
        tinylora_B.Set(LowRank.ScaleColumns(u.narrow(1, 0, r), root));
        Draw(site);
    }

    public override void Prepare(Site site)
    {
        if (!_config.SaveProjection)
        {
            Draw(site);
        }
    }

    private void Draw(Site site)
    {
        using var generator = new Generator((ulong)(_config.ProjectionSeed + _number));
        tinylora_P.Set(randn([.. tinylora_P.Shape], generator: generator).Times(1 / Math.Sqrt(tinylora_A.Shape[0])).to(site.Weight.Value.device));
    }

    /// <summary>One v for each group of modules.</summary>
    private sealed class GroupVectors(TinyLoraConfig config, int groups) : SharedWeights
    {
        private readonly Weight[] _vectors = [.. Enumerable.Range(0, groups).Select(_ => new Weight(config.U) { Trainable = true })];

        public override IEnumerable<(string Key, Weight Weight)> State => _vectors.Select((vector, i) => ($"base_model.tinylora_v.{i}", vector));

        public Weight Of(int group) => _vectors[group];

        public override void Initialize(PretrainedModel model, Generator generator)
        {
            foreach (var vector in _vectors)
            {
                vector.Uniform(config.InitWeights.IsZero ? 0 : config.InitVBound, generator, model.Device);
            }
        }
    }
}
