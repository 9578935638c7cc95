using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Oft;

/// <summary>y = W(xR) at a projection, R block-diagonal and orthogonal.</summary>
internal sealed class OftProjection : SiteAdapter
{
    private readonly OftConfig _config;
    private readonly int _side;
    private readonly int _blocks;
    private readonly Weight _weight; // (blocks or 1, side·(side-1)/2)

    public OftProjection(OftConfig config, Projection site)
    {
        if (config.R == 0 == (config.OftBlockSize == 0))
        {
            throw new AdapterException("oft_block_size", "Give either r or oft_block_size; the other must be 0.");
        }

        _config = config;
        _side = config.OftBlockSize != 0 ? Divisor(site.InFeatures, config.OftBlockSize) : site.InFeatures / Divisor(site.InFeatures, config.R);
        _blocks = site.InFeatures / _side;
        _weight = new Weight(config.BlockShare ? 1 : _blocks, _side * (_side - 1) / 2) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [("oft_R.weight", _weight)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var slices = x.reshape(x.size(0), _blocks, _side).transpose(0, 1); // [blocks, n, side]
        var rotated = slices.bmm(Rotation().to(x.dtype)).transpose(0, 1).reshape(x.shape);
        return call.Next(rotated).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator) =>
        _weight.Normal(_config.InitWeights ? 0 : 0.1, generator, site.Weight.Value.device);

    // x R Wᵀ = x (W Rᵀ)ᵀ.
    public override Tensor Merge(Site site, Tensor weight)
    {
        var slices = weight.to(ScalarType.Float32).reshape(weight.size(0), _blocks, _side).transpose(0, 1); // [blocks, out, side]
        return slices.bmm(Rotation().transpose(1, 2)).transpose(0, 1).reshape(weight.shape);
    }

    /// <summary>The blocks [blocks, side, side].</summary>
    private Tensor Rotation()
    {
        if (_config.Coft)
        {
            Project();
        }

        var skew = CayleyTransform.Skew(_weight.Value, _side);
        var rotation = _config.UseCayleyNeumann ? CayleyTransform.Neumann(skew, _config.NumCayleyNeumannTerms) : CayleyTransform.Exact(skew);
        return _config.BlockShare ? rotation.expand(_blocks, -1, -1) : rotation;
    }

    // As PEFT does: the projection changes the weight itself, outside of the gradient.
    private void Project()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var limit = (_config.Eps / Math.Sqrt(_weight.Shape[0])).ToScalar();
        using var two = 2.0.ToScalar();
        var length = _weight.Value.mul(_weight.Value).sum(1, keepdim: true).mul(two).sqrt(); // of the skew matrix, [blocks, 1]
        _weight.Value.mul_(where(length.le(limit), ones_like(length), full_like(length, limit).div(length)));
    }

    /// <summary>The wanted divisor of a width, or the nearest one, as PEFT adjusts it.</summary>
    private static int Divisor(int width, int wanted)
    {
        if (wanted <= width && width % wanted == 0)
        {
            return wanted;
        }

        var above = Enumerable.Range(wanted, Math.Max(0, width - wanted + 1)).FirstOrDefault(d => width % d == 0, width);
        var below = Enumerable.Range(1, Math.Min(wanted, width)).Last(d => width % d == 0);
        return wanted - below <= above - wanted ? below : above;
    }
}
