using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Miss;

/// <summary>y += (Σ of the slices of x) · block at a projection; an input that does not fill its last slice is padded.</summary>
internal sealed class MissProjection : LinearDelta
{
    private readonly MissConfig _config;
    private readonly Weight miss_block; // (r, out), or (r, mini_r)

    public MissProjection(MissConfig config, Projection site)
    {
        _config = config;
        var mini = config.InitWeights.Name == "mini";
        if (mini && site.OutFeatures % config.MiniR != 0)
        {
            throw new AdapterException("mini_r", $"{config.MiniR} does not divide the {site.OutFeatures} outputs of {site.Path}.");
        }

        miss_block = new Weight(config.R, mini ? config.MiniR : site.OutFeatures) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(miss_block), miss_block)];

    protected override double DropoutShare => _config.MissDropout;

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var missing = (_config.R - (site.InFeatures % _config.R)) % _config.R;
        var padded = missing == 0 ? x : F.pad(x, [0, missing]);
        var block = miss_block.Value.repeat(1, site.OutFeatures / miss_block.Shape[1]).to(x.dtype); // [r, out]
        return padded.reshape(x.size(0), -1, _config.R).sum(1).mm(block);
    }

    public override void Initialize(Site site, Generator generator) =>
        miss_block.Normal(_config.InitWeights.Name == "false" ? 1 : 0, generator, site.Weight.Value.device);
}
