using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Shadow;

/// <summary>What one block has: the way into it and the step of s behind it.</summary>
internal sealed class ShadowBlock
{
    private readonly ShadowConfig _config;
    private readonly Scalar _alpha;
    private readonly Weight _down; // (r, width)
    private readonly Weight _up; // (width, r)
    private readonly DenseLayer[] _candidate;
    private readonly DenseLayer[] _gate;

    public ShadowBlock(ShadowConfig config, int width)
    {
        (_config, _alpha) = (config, config.ShadowAlpha.ToScalar());
        _down = new Weight(config.R, width) { Trainable = true };
        _up = new Weight(width, config.R) { Trainable = true };
        (_candidate, _gate) = (Net("shadow_update_transform"), Net("shadow_update_gate"));

        DenseLayer[] Net(string name)
        {
            var inner = config.UpdateHiddenSize ?? config.R;
            return [new($"{name}.default.0", width, inner), new($"{name}.default.2", inner, width)];
        }
    }

    public IEnumerable<(string Name, Weight Weight)> State =>
        [("shadow_down.default.weight", _down), ("shadow_up.default.weight", _up), .. _candidate.Concat(_gate).SelectMany(layer => layer.Weights)];

    /// <summary>h with what it differs from s by put into it, [n, width].</summary>
    public Tensor Inject(Tensor h, Tensor s, Generator? draws)
    {
        using var scope = NewDisposeScope();
        var difference = Dropout.Apply(h.Minus(s.to(h.dtype)).to(_down.Value.dtype), _config.ShadowDropout, draws);
        var change = F.linear(F.linear(difference, _down.Value), _up.Value).mul(_alpha); // [n, width]
        return h.Plus(change.to(h.dtype)).MoveToOuterDisposeScope();
    }

    /// <summary>s behind the block that gave h, [n, width].</summary>
    public Tensor Advance(Tensor h, Tensor s)
    {
        using var scope = NewDisposeScope();
        var own = h.to(_down.Value.dtype);
        var gate = Through(_gate, own).sigmoid(); // [n, width]
        return s.Plus(gate.mul(Through(_candidate, own).Minus(s))).MoveToOuterDisposeScope();
    }

    public void Initialize(Generator generator, Device device)
    {
        _down.Kaiming(_down.Shape[1], generator, device);
        _up.Kaiming(_up.Shape[1], generator, device);
        if (_config.InitWeights)
        {
            _up.Zeros(device);
        }

        Array.ForEach(_candidate, layer => layer.Initialize(generator, device));
        Array.ForEach(_gate, layer => layer.Initialize(generator, device));
    }

    private static Tensor Through(DenseLayer[] net, Tensor x) => net[1].Forward(F.gelu(net[0].Forward(x)));
}

/// <summary>Between two blocks: s goes a step behind the one, and into the next.</summary>
internal sealed class ShadowBoundary(ShadowAdapter adapter, int layer, ShadowBlock? behind, ShadowBlock? before) : HiddenPart
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Forward(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        using var scope = NewDisposeScope();
        var s = behind is null ? adapter.Start(batch, run) : adapter.Advanced(batch, run, layer, behind, x);
        return (before?.Inject(x, s, batch.Dropout) ?? x.alias()).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Generator generator, Device device)
    {
    }
}
