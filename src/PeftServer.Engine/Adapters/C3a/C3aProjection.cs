using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.C3a;

/// <summary>ΔW at a projection: block (i, j) is the circulant matrix of kernel (i, j), its rows shifted to the right, divided by the width of the input.</summary>
internal sealed class C3aProjection : WeightDelta
{
    private readonly C3aConfig _config;
    private readonly Scalar _scale;
    private readonly int _side;
    private readonly Weight c3a_kernel; // (out/b, in/b, b)

    public C3aProjection(C3aConfig config, Projection site)
    {
        _config = config;
        _scale = (1.0 / site.InFeatures).ToScalar();
        _side = Adapters.TargetModules.ByPattern(config.BlockSizePattern, site.Path, config.BlockSize);
        if (_side < 1 || site.InFeatures % _side != 0 || site.OutFeatures % _side != 0)
        {
            throw new AdapterException("block_size", $"{_side} does not divide both sides of {site.Path} [{site.OutFeatures}, {site.InFeatures}].");
        }

        c3a_kernel = new Weight(site.OutFeatures / _side, site.InFeatures / _side, _side) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(c3a_kernel), c3a_kernel)];

    public override Tensor DeltaWeight(Projection site) => Blocks(site, (i, j) => j - i + _side);

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        if (_config.Gradient == C3aGradient.Exact || !x.requires_grad)
        {
            return base.Delta(x, call);
        }

        using var scope = NewDisposeScope();
        var site = (Projection)call.Site;
        var reversed = F.linear(x, Blocks(site, (i, j) => i + j).detach().to(x.dtype)); // its gradient is PEFT's, its value is taken away again
        return F.linear(x.detach(), DeltaWeight(site).to(x.dtype)).Plus(reversed.Minus(reversed.detach())).MoveToOuterDisposeScope(); // [n, out]
    }

    /// <summary>A matrix of blocks, each holding at (i, j) the number of its kernel at <paramref name="place"/>, counted around: [out, in].</summary>
    private Tensor Blocks(Projection site, Func<int, int, int> place)
    {
        var kernel = c3a_kernel.Value;
        var places = Enumerable.Range(0, _side).SelectMany(i => Enumerable.Range(0, _side).Select(j => (long)(place(i, j) % _side))).ToArray();
        return kernel.index_select(2, tensor(places, device: kernel.device))
            .view(kernel.size(0), kernel.size(1), _side, _side).permute(0, 2, 1, 3).reshape(site.OutFeatures, site.InFeatures).mul(_scale);
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        var (rows, columns) = (c3a_kernel.Shape[0], c3a_kernel.Shape[1]);
        switch (_config.InitWeights.Name)
        {
            case "true":
                c3a_kernel.Zeros(device);
                break;
            case "gaussian":
                c3a_kernel.Normal(1, generator, device);
                break;
            case "kaiming_uniform":
                c3a_kernel.Kaiming(columns * _side, generator, device);
                break;
            default:
                c3a_kernel.Uniform(Math.Sqrt(6.0 / ((rows + columns) * _side)), generator, device);
                break;
        }
    }
}
