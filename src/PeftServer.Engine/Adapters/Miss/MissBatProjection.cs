using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Miss;

/// <summary>"bat": ΔW = W·M + M in blocks of r × r, one M for each row of blocks.</summary>
internal sealed class MissBatProjection : WeightDelta
{
    private readonly int _r;
    private readonly Weight miss_block; // (out/r, r, r)

    public MissBatProjection(MissConfig config, Projection site)
    {
        _r = config.R;
        if (site.InFeatures % _r != 0 || site.OutFeatures % _r != 0)
        {
            throw new AdapterException("r", $"{_r} does not divide both sides of {site.Path} [{site.OutFeatures}, {site.InFeatures}], as \"bat\" needs.");
        }

        miss_block = new Weight(site.OutFeatures / _r, _r, _r) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(miss_block), miss_block)];

    public override Tensor DeltaWeight(Projection site)
    {
        var (rows, columns) = (site.OutFeatures / _r, site.InFeatures / _r);

        // PEFT's layout: the block that multiplies column block j of row i stands at the same row i.
        var blocks = site.DenseWeight().to(ScalarType.Float32).reshape(rows, _r, columns, _r).permute(0, 2, 1, 3); // [rows, columns, r, r]
        var moved = blocks.reshape(rows, columns * _r, _r).bmm(miss_block.Value).view(rows, columns, _r, _r).Plus(miss_block.Value.unsqueeze(1));
        return moved.permute(0, 2, 1, 3).reshape(site.OutFeatures, site.InFeatures);
    }

    public override void Initialize(Site site, Generator generator) => miss_block.Zeros(site.Weight.Value.device);
}
