using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>BD-LoRA: A [r, in/n] or B [out, r/n] holds n blocks of a diagonal, one above the other.</summary>
internal sealed class BlockDiagonalProjection : LoraProjection
{
    private readonly int _blocks;
    private readonly bool _inA;

    private BlockDiagonalProjection(LoraConfig config, Projection site, int blocks, bool inA)
        : base(config, site, r => Shapes(site, r, blocks, inA))
    {
        (_blocks, _inA) = (blocks, inA);
    }

    /// <summary>The part for a site: with blocks in A or in B as its name says, or a plain LoRA where it is not named and need not be.</summary>
    public static LoraProjection Create(LoraConfig config, Projection site)
    {
        var settings = config.UseBdlora!;
        var name = site.Path[(site.Path.LastIndexOf('.') + 1)..];
        var (inA, inB) = (Names(settings.TargetModulesBdA, name), Names(settings.TargetModulesBdB, name));
        if (inA == inB && (inA || settings.MatchStrict))
        {
            throw new AdapterException("use_bdlora", inA
                ? $"{name} is in target_modules_bd_a and in target_modules_bd_b. Keep one."
                : $"{name} is neither in target_modules_bd_a nor in target_modules_bd_b. Name it, or set match_strict to false.");
        }

        return inA || inB ? new BlockDiagonalProjection(config, site, settings.Nblocks, inA) : new LoraProjection(config, site);
    }

    protected override Tensor Low(Tensor x, in SiteCall call) => _inA ? Blockwise(x, A.to(x.dtype)) : base.Low(x, call);

    protected override Tensor High(Tensor low) => _inA ? base.High(low) : Blockwise(low, B.to(low.dtype));

    protected override Tensor Product()
    {
        var (a, b) = (A.to(ScalarType.Float32), B.to(ScalarType.Float32));
        return _inA ? b.mm(block_diag(a.chunk(_blocks, 0))) : block_diag(b.chunk(_blocks, 0)).mm(a);
    }

    /// <summary>The blocked side starts by its inputs as PEFT's own layer does: ±√6/√fan_in.</summary>
    protected override (Tensor A, Tensor B) Draw(Generator generator)
    {
        var (a, b) = base.Draw(generator);
        return _inA && Config.InitLoraWeights == LoraInit.Default ? (a.Times(Math.Sqrt(6)), b) : (a, b);
    }

    /// <summary>Block i of x through block i of the weight.</summary>
    private Tensor Blockwise(Tensor x, Tensor weight)
    {
        var slices = x.reshape(x.size(0), _blocks, -1).transpose(0, 1); // [blocks, n, in/blocks]
        var blocks = weight.view(_blocks, -1, weight.size(1)).transpose(1, 2); // [blocks, in/blocks, out/blocks]
        return slices.bmm(blocks).transpose(0, 1).reshape(x.size(0), -1); // [n, out]
    }

    private static bool Names(IReadOnlyList<string>? patterns, string name) => patterns?.Any(pattern => name.Contains(pattern, StringComparison.Ordinal)) ?? false;

    private static (long[] A, long[] B) Shapes(Projection site, int r, int blocks, bool inA)
    {
        var (width, field) = inA ? (site.InFeatures, "inputs") : (site.OutFeatures, "outputs");
        return r % blocks != 0 || width % blocks != 0
            ? throw new AdapterException("use_bdlora", $"nblocks {blocks} must divide r ({r}) and the {width} {field} of {site.Path}.")
            : inA ? ([r, site.InFeatures / blocks], [site.OutFeatures, r]) : ([r, site.InFeatures], [site.OutFeatures, r / blocks]);
    }
}
