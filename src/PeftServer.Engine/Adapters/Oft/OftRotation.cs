using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Oft;

/// <summary>R of one module: block-diagonal and orthogonal.</summary>
internal sealed class OftRotation
{
    private readonly OftConfig _config;
    private readonly int _side;
    private readonly int _blocks;

    public OftRotation(OftConfig config, int width)
    {
        if (config.R == 0 == (config.OftBlockSize == 0))
        {
            throw new AdapterException("oft_block_size", "Give either r or oft_block_size; the other must be 0.");
        }

        _config = config;
        _side = config.OftBlockSize != 0 ? Divisor(width, config.OftBlockSize) : width / Divisor(width, config.R);
        _blocks = width / _side;
        Weight = new Weight(config.BlockShare ? 1 : _blocks, _side * (_side - 1) / 2) { Trainable = true };
    }

    /// <summary>The upper triangles of the skew-symmetric blocks (blocks or 1, side·(side-1)/2).</summary>
    public Weight Weight { get; }

    /// <summary>xR for x [n, width].</summary>
    public Tensor Turn(Tensor x) => Turn(x, Blocks().to(x.dtype));

    /// <summary>xRᵀ for x [n, width].</summary>
    public Tensor TurnBack(Tensor x) => Turn(x, Blocks().transpose(1, 2).to(x.dtype));

    public void Initialize(Generator generator, Device device) => Weight.Normal(_config.InitWeights ? 0 : 0.1, generator, device);

    private Tensor Turn(Tensor x, Tensor blocks)
    {
        var slices = x.reshape(x.size(0), _blocks, _side).transpose(0, 1); // [blocks, n, side]
        return slices.bmm(blocks).transpose(0, 1).reshape(x.shape);
    }

    /// <summary>The blocks [blocks, side, side].</summary>
    private Tensor Blocks()
    {
        if (_config.Coft)
        {
            Project();
        }

        var skew = CayleyTransform.Skew(Weight.Value, _side);
        var rotation = _config.UseCayleyNeumann ? CayleyTransform.Neumann(skew, _config.NumCayleyNeumannTerms) : CayleyTransform.Exact(skew);
        return _config.BlockShare ? rotation.expand(_blocks, -1, -1) : rotation;
    }

    // As PEFT does: the projection changes the weight itself, outside of the gradient.
    private void Project()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var limit = (_config.Eps / Math.Sqrt(Weight.Shape[0])).ToScalar();
        using var two = 2.0.ToScalar();
        var length = Weight.Value.mul(Weight.Value).sum(1, keepdim: true).mul(two).sqrt(); // of the skew matrix, [blocks, 1]
        Weight.Value.mul_(where(length.le(limit), ones_like(length), full_like(length, limit).div(length)));
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
