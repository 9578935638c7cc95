using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// A bottleneck in the stream: u(x) = s·Up(act(Down(x))). Sequential: h + u(x), x being h or the model's norm of h + residual; parallel:
/// x is the stream before the block.
/// </summary>
internal sealed class Bottleneck : ResidualPart
{
    private readonly BottleneckConfig _config;
    private readonly HubNorm? _normBefore;
    private readonly HubNorm? _normAfter;
    private readonly HubLinear _down;
    private readonly HubLinear _up;
    private readonly DenseLinear? _gate;
    private readonly Weight? _scaling; // (1) or (hidden)
    private readonly KeptScalar? _scale;
    private readonly Func<Tensor, Tensor> _act;

    private Bottleneck(BottleneckConfig config, int hidden, HubLinear down, HubLinear up)
    {
        (_config, _down, _up, _act) = (config, down, up, HubActivation.Of(config.NonLinearity));
        _normBefore = config.LnBefore ? new HubNorm(hidden) : null;
        _normAfter = config.LnAfter ? new HubNorm(hidden) : null;
        _gate = config.UseGating ? new DenseLinear(hidden, 1) : null;
        _scale = config.ConstantScale is { } scale and not 1 ? new KeptScalar(scale) : null;
        _scaling = config.ConstantScale is null ? new Weight(config.Scaling.ToString() == "learned" ? 1 : hidden) { Trainable = true } : null;
    }

    internal BottleneckConfig Config => _config;

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            var linear = _normBefore is null ? 0 : 1;
            IEnumerable<(string, HubModule?)> modules =
            [
                ("adapter_down.0", _normBefore), ($"adapter_down.{linear}", (HubModule)_down), ("adapter_up", _up), ("adapter_norm_after", _normAfter), ("gate", _gate),
            ];
            var own = modules.Where(entry => entry.Item2 is not null).SelectMany(entry => entry.Item2!.State.Select(state => ($"{entry.Item1}.{state.Name}", state.Weight)));
            return _scaling is null ? own : own.Append(("scaling", _scaling));
        }
    }

    public static Bottleneck Create(BottleneckConfig config, ResidualSite site, int hidden, PhmShared? shared)
    {
        var width = config.Width(hidden, site.Layer);
        return config.PhmLayer
            ? new Bottleneck(config, hidden, new PhmLinear(config, hidden, width, shared!, "down"), new PhmLinear(config, width, hidden, shared!, "up"))
            : new Bottleneck(config, hidden, new DenseLinear(hidden, width), new DenseLinear(width, hidden));
    }

    public override ResidualInput Enter(Tensor h, in ResidualCall call)
    {
        if (_config.IsParallel)
        {
            return new ResidualInput(call.Residual, null);
        }

        if (!_config.OriginalLnBefore)
        {
            return new ResidualInput(h, h);
        }

        var sum = h.Plus(call.Residual);
        var x = call.Normed(sum); // [n, hidden]
        return new ResidualInput(x, _config.Skip switch { Skip.BeforeNorm => h, Skip.BehindSum => sum, _ => x });
    }

    public override Tensor Up(in ResidualInput input, in ResidualCall call)
    {
        using var scope = NewDisposeScope();
        var x = _normBefore?.Forward(input.X) ?? input.X;
        var up = _up.Forward(_act(_down.Forward(x))); // [n, hidden]
        up = DropSequences(up, call);
        up = _scaling is not null ? up.mul(_scaling.Value.to(up.dtype)) : _scale is not null ? up.mul(_scale) : up;
        return up.MoveToOuterDisposeScope();
    }

    public override Tensor Forward(in ResidualInput input, in ResidualCall call)
    {
        using var scope = NewDisposeScope();
        var y = Dropout.Apply(Up(input, call), _config.Dropout, call.Batch.Dropout);
        if (_gate is not null)
        {
            y = y.mul(SequenceMeans.Spread(_gate.Forward(input.X).sigmoid(), call.Batch, call.Run)); // [n, hidden] · [n, 1]
        }

        if (input.Skip is not { } skip)
        {
            return (_normAfter?.Forward(y) ?? y).MoveToOuterDisposeScope();
        }

        y = _config.AdapterResidualBeforeLn ? y.Plus(skip) : y;
        y = _normAfter?.Forward(y) ?? y;
        return (_config.AdapterResidualBeforeLn ? y : y.Plus(skip)).MoveToOuterDisposeScope();
    }

    public override Tensor Leave(Tensor adapted, Tensor h, in ResidualCall call)
    {
        adapted = _config.IsParallel ? adapted.Plus(h) : adapted;
        return _config.OriginalLnAfter ? call.Close(adapted) : adapted;
    }

    public override void Initialize(Generator generator, Device device)
    {
        _normBefore?.Initialize(device);
        _normAfter?.Initialize(device);
        _scaling?.Ones(device);
        var start = _config.InitWeights switch { "bert" => LinearStart.Bert, "houlsby" => LinearStart.Houlsby, _ => LinearStart.Kaiming };
        _down.Initialize(start, generator, device);
        _up.Initialize(_config.InitWeights == "mam_adapter" ? LinearStart.Zero : start, generator, device);
        _gate?.Initialize(LinearStart.Bert, generator, device);
    }

    /// <summary>Stochastic depth: a sequence does without the adapter now and then, and the others make up for it.</summary>
    private Tensor DropSequences(Tensor up, in ResidualCall call)
    {
        if (_config.StochasticDepth == 0 || call.Batch.Dropout is not { } generator)
        {
            return up;
        }

        using var keep = (1 - _config.StochasticDepth).ToScalar();
        var sequences = call.Batch.SequencesOf(call.Run).ToList();
        var kept = rand(sequences.Count, 1, generator: generator).lt(keep).to(up.dtype, up.device).div(keep);
        return up.mul(kept.repeat_interleave(tensor(sequences.Select(sequence => (long)sequence.Count).ToArray(), device: up.device), 0)); // [n, hidden]
    }
}
