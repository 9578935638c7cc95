using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Vblora;

/// <summary>y += BAx at a projection, A and B put together from mixes of the bank.</summary>
internal sealed class VbloraProjection : LinearDelta
{
    private readonly VbloraConfig _config;
    private readonly VectorBank _bank;
    private readonly Weight vblora_logits_A; // (r, in/b, count)
    private readonly Weight vblora_logits_B; // (out/b, r, count)

    private VbloraProjection(VbloraConfig config, VectorBank bank, Projection site)
    {
        var length = config.VectorLength;
        if (site.InFeatures % length != 0 || site.OutFeatures % length != 0)
        {
            throw new AdapterException("vector_length", $"{length} does not divide both sides of {site.Path} [{site.OutFeatures}, {site.InFeatures}].");
        }

        (_config, _bank) = (config, bank);
        vblora_logits_A = new Weight(config.R, site.InFeatures / length, config.NumVectors) { Trainable = true };
        vblora_logits_B = new Weight(site.OutFeatures / length, config.R, config.NumVectors) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(vblora_logits_A), vblora_logits_A), (nameof(vblora_logits_B), vblora_logits_B)];

    protected override double DropoutShare => _config.VbloraDropout;

    public static MethodParts Create(VbloraConfig config, IReadOnlyList<Site> sites)
    {
        if (config.Topk > config.NumVectors)
        {
            throw new AdapterException("topk", $"{config.Topk} is more than num_vectors ({config.NumVectors}).");
        }

        var bank = new VectorBank(config);
        return new([.. sites.Select(site => new VbloraProjection(config, bank, TargetedConfig.AsProjection(site)))], bank);
    }

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var a = _bank.Mix(vblora_logits_A.Value).reshape(_config.R, site.InFeatures).to(x.dtype); // [r, in]
        var b = _bank.Mix(vblora_logits_B.Value).transpose(1, 2).reshape(site.OutFeatures, _config.R).to(x.dtype); // [out, r]
        return F.linear(F.linear(x, a), b);
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        vblora_logits_A.Normal(_config.InitLogitsStd, generator, device);
        vblora_logits_B.Normal(_config.InitLogitsStd, generator, device);
    }
}
