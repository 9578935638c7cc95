using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Boft;

/// <summary>W′ = s ∘ (W Rᵀ) at a projection, R block-diagonal and orthogonal.</summary>
internal sealed class BoftProjection : WeightMap
{
    private static readonly Scalar Half = 0.5.ToScalar();

    private readonly BoftConfig _config;
    private readonly int _side;
    private readonly int _blocks;
    private readonly Weight boft_R; // (1, blocks, side, side)
    private readonly Weight boft_s; // (out, 1)

    public BoftProjection(BoftConfig config, Projection site)
    {
        var given = Math.Max(config.BoftBlockSize, config.BoftBlockNum);
        if (config.BoftBlockSize != 0 == (config.BoftBlockNum != 0) || site.InFeatures % given != 0)
        {
            throw new AdapterException("boft_block_size", $"Give either boft_block_size or boft_block_num, the other as 0; it must divide the {site.InFeatures} inputs of {site.Path}.");
        }

        _config = config;
        _side = config.BoftBlockSize != 0 ? given : site.InFeatures / given;
        _blocks = site.InFeatures / _side;
        boft_R = new Weight(1, _blocks, _side, _side) { Trainable = true };
        boft_s = new Weight(site.OutFeatures, 1) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(boft_R), boft_R), (nameof(boft_s), boft_s)];

    public override Tensor Map(Tensor weight) => Turned(weight, Rotation());

    protected override Tensor Map(Tensor weight, Generator draws)
    {
        var rotation = Rotation();
        if (_config.BoftDropout == 0)
        {
            return Turned(weight, rotation);
        }

        // PEFT first draws which factor of the product loses blocks; there is one.
        using var factor = randint(1, [1], generator: draws);
        using var count = ((long)(_config.BoftDropout * _blocks)).ToScalar();
        var left = randperm(_blocks, generator: draws).lt(count).to(rotation.dtype, rotation.device).view(-1, 1, 1); // [blocks, 1, 1]
        var unit = eye(_side, dtype: rotation.dtype, device: rotation.device);
        return Turned(weight, rotation.Minus(rotation.Minus(unit).mul(left)));
    }

    /// <summary>The blocks [blocks, side, side].</summary>
    private Tensor Rotation()
    {
        var free = boft_R.Value.squeeze(0);
        return CayleyTransform.Exact(free.Minus(free.transpose(1, 2)).mul(Half));
    }

    private Tensor Turned(Tensor weight, Tensor rotation)
    {
        var slices = weight.reshape(weight.size(0), _blocks, _side).transpose(0, 1); // [blocks, out, side]
        return slices.bmm(rotation.transpose(1, 2)).transpose(0, 1).reshape(weight.shape).mul(boft_s.Value);
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        boft_R.Normal(_config.InitWeights ? 0 : 0.1, generator, device);
        boft_s.Ones(device);
        if (!_config.InitWeights)
        {
            boft_s.Normal(0.1, generator, device);
        }
    }
}
