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
    private readonly MixFile[] _mixes;

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
        _mixes = config.SaveOnlyTopkWeights ? [.. State.Select(state => new MixFile(state.Name, state.Weight, config.Topk))] : [];
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(vblora_logits_A), vblora_logits_A), (nameof(vblora_logits_B), vblora_logits_B)];

    internal override IEnumerable<(string Name, Weight Weight)> FileState => _config.SaveOnlyTopkWeights ? _mixes.SelectMany(mix => mix.State) : State;

    internal override IEnumerable<(string Name, Tensor Value)> SavedState => _config.SaveOnlyTopkWeights ? _mixes.SelectMany(mix => mix.Saved()) : base.SavedState;

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

    public override void Prepare(Site site) => Array.ForEach(_mixes, mix => mix.Take());

    internal override void RequireTrainable()
    {
        using var scope = NewDisposeScope();
        if (_mixes.Any(mix => mix.Logits.Value.isinf().any().item<bool>()))
        {
            throw new AdapterException("save_only_topk_weights", "This adapter's file holds the best vectors of every mix and not the logits it was trained by, so it cannot train on. Start a new one.");
        }
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        vblora_logits_A.Normal(_config.InitLogitsStd, generator, device);
        vblora_logits_B.Normal(_config.InitLogitsStd, generator, device);
    }
}
