using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lily;

/// <summary>y += s·(Σₑ pₑBₑ)Ax at a projection, p the mean of what the router says of the tokens.</summary>
internal sealed class LilyProjection : AdditiveSiteAdapter
{
    private readonly LilyConfig _config;
    private readonly KeptScalar _scale;
    private readonly Weight _a; // (r, in)
    private readonly Weight _b; // (experts·r, out)
    private readonly Weight _router; // (experts, r)
    private readonly bool _drawsA;
    private readonly bool _drawsB;

    private LilyProjection(LilyConfig config, Weight a, Weight b, bool drawsA, bool drawsB)
    {
        (_config, _scale, _a, _b, _drawsA, _drawsB) = (config, new KeptScalar(config.Scaling), a, b, drawsA, drawsB);
        _router = new Weight(config.NumB, config.R) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [("lily_A.weight", _a), ("lily_B.weight", _b), ("lily_router.weight", _router)];

    public static MethodParts Create(LilyConfig config, IReadOnlyList<Site> sites)
    {
        var groups = new Dictionary<(string Name, int In, int Out), List<Projection>>();
        var parts = new Dictionary<Site, SiteAdapter>();
        foreach (var site in sites.Select(TargetedConfig.AsProjection))
        {
            // PEFT groups by the last of the target names that the path ends with.
            var name = config.TargetModules!.Names?.LastOrDefault(name => site.Path.EndsWith(name, StringComparison.Ordinal)) ?? config.TargetModules.Pattern ?? "";
            var key = (name, site.InFeatures, site.OutFeatures);
            groups[key] = [.. groups.GetValueOrDefault(key) ?? [], site];
        }

        foreach (var ((_, inFeatures, outFeatures), members) in groups)
        {
            var b = new Weight(config.NumB * config.R, outFeatures) { Trainable = true };
            var a = b;
            for (var i = 0; i < members.Count; i++)
            {
                var leads = i % config.StrideA == 0;
                a = leads ? new Weight(config.R, inFeatures) { Trainable = true } : a;
                parts[members[i]] = new LilyProjection(config, a, b, leads, i == 0);
            }
        }

        return new([.. sites.Select(site => parts[site])]);
    }

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var hidden = F.linear(x, _a.Value.to(x.dtype)); // [n, r]
        var shares = F.linear(hidden, _router.Value.to(x.dtype)).softmax(-1).mean([0]); // [experts]
        var mixed = _b.Value.to(x.dtype).view(_config.NumB, _config.R, -1).mul(shares.view(-1, 1, 1)).sum([0]); // [r, out]
        return hidden.mm(mixed).mul(_scale).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        if (_drawsA)
        {
            _a.Kaiming(_a.Shape[1], generator, device);
        }

        if (_drawsB)
        {
            _b.Kaiming(_b.Shape[1], generator, device);
            if (_config.InitWeights)
            {
                _b.Zeros(device);
            }
        }

        _router.Kaiming(_router.Shape[1], generator, device);
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"LILY mixes by what the tokens are, so it cannot be merged into the weight of {site.Path}. Serve it unmerged.");
}
