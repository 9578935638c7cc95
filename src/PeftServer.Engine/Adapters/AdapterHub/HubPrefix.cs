using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>Keys and values for all attentions of one kind: [length, 2 · layers, heads, width], a layer's keys first.</summary>
internal sealed class HubPrefix
{
    private readonly HubPrefixConfig _config;
    private readonly HubAdapter _adapter;
    private readonly IReadOnlyList<AttentionPlace> _places;
    private readonly Weight? wte; // (length, hidden)
    private readonly DenseLinear? _in;
    private readonly DenseLinear? _out;
    private readonly Weight? control_trans; // (length · 2 · layers · heads · width)
    private readonly Func<Tensor, Tensor> _act;
    private readonly int _heads;

    public HubPrefix(HubPrefixConfig config, HubAdapter adapter, IReadOnlyList<AttentionPlace> places)
    {
        (_config, _adapter, _places, Kind) = (config, adapter, places, places[0].Kind);
        var (heads, width) = adapter.Architecture.KeyHeads(adapter.Model.Config, Kind);
        var (size, hidden) = (2 * places.Count * heads * width, adapter.Model.HiddenSize);
        (_heads, _act) = (heads, HubActivation.Of(config.NonLinearity));
        if (config.Flat)
        {
            control_trans = new Weight((long)config.PrefixLength * size) { Trainable = true };
        }
        else
        {
            wte = new Weight(config.PrefixLength, hidden) { Trainable = true };
            (_in, _out) = (new DenseLinear(hidden, config.BottleneckSize), new DenseLinear(config.BottleneckSize, size));
        }

        if (config.UseGating)
        {
            foreach (var place in places)
            {
                var site = place.Queries;
                var path = site.Path[..site.Path.LastIndexOf('.')];
                adapter.Attach(site, new PrefixGate(config, adapter, hidden, Kind, StackLayer(place)), $"{path}.prefix_tuning.prefix_gates.{adapter.Name}", isKey: true);
            }
        }
    }

    public AttentionKind Kind { get; }

    /// <summary>Keys and values that it puts before every sequence.</summary>
    public int Length => _config.PrefixLength;

    /// <summary>Weights by the end of their names.</summary>
    public IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            var kind = _adapter.Architecture.PrefixName(Kind);
            return control_trans is not null
                ? [($"{kind}.{nameof(control_trans)}", control_trans)]
                : new[] { ($"{kind}.{nameof(wte)}.weight", wte!) }
                    .Concat(_in!.State.Select(state => ($"{kind}.{nameof(control_trans)}.0.{state.Name}", state.Weight)))
                    .Concat(_out!.State.Select(state => ($"{kind}.{nameof(control_trans)}.2.{state.Name}", state.Weight)));
        }
    }

    public void Initialize(Generator generator, Device device)
    {
        control_trans?.Normal(1, generator, device);
        wte?.Normal(1, generator, device);
        _in?.Initialize(LinearStart.Torch, generator, device);
        _out?.Initialize(LinearStart.Torch, generator, device);
    }

    /// <summary>The keys and values, made anew.</summary>
    public AttentionPrefix Create()
    {
        using var scope = NewDisposeScope();
        var rows = control_trans is not null ? control_trans.Value : _out!.Forward(_act(_in!.Forward(wte!.Value)));
        var all = rows.to(_adapter.Model.Dtype).view(_config.PrefixLength, 2 * _places.Count, _heads, -1); // [P, 2L, G, D]
        var layers = _places.Select((place, i) => (Layer: StackLayer(place), Keys: all.select(1, 2 * i), Values: all.select(1, (2 * i) + 1)))
            .ToDictionary(entry => entry.Layer, entry => (entry.Keys, entry.Values));
        return _config.UseGating ? new GatedPrefix(_adapter, Kind, layers) : new AttentionPrefix(layers, 0);
    }

    // Attention counts the layers of its own stack.
    private int StackLayer(AttentionPlace place) => place.Layer - _adapter.FirstLayerOf(Kind);
}

/// <summary>A prefix that each sequence weighs by a gate, which the layer computes from what goes into its attention.</summary>
internal sealed class GatedPrefix(HubAdapter adapter, AttentionKind kind, IReadOnlyDictionary<int, (Tensor Keys, Tensor Values)> layers) : AttentionPrefix(layers, 0)
{
    private readonly Dictionary<(int Layer, int Sequence), Tensor> _gates = [];

    internal override bool IsKept => false;

    public bool Belongs(HubAdapter owner, AttentionKind place) => ReferenceEquals(owner, adapter) && place == kind;

    /// <summary>gate: [1] or [2], for keys and values.</summary>
    public void Weigh(int layer, int sequence, Tensor gate)
    {
        _gates.GetValueOrDefault((layer, sequence))?.Dispose(); // of the same layer, when it runs again for its gradients
        _gates[(layer, sequence)] = gate.DetachFromDisposeScope();
    }

    internal override (Tensor Keys, Tensor Values)? At(int layer, int sequence)
    {
        if (At(layer) is not var (keys, values) || !_gates.TryGetValue((layer, sequence), out var gate))
        {
            return null;
        }

        return (keys.mul(gate[0].to(keys.dtype)), values.mul(gate[-1].to(values.dtype)));
    }

    public override void Dispose()
    {
        foreach (var gate in _gates.Values)
        {
            gate.Dispose();
        }

        _gates.Clear();
        base.Dispose();
    }
}

/// <summary>The gate of a layer's prefix, at the projection that makes its queries: it sees what goes into the attention.</summary>
internal sealed class PrefixGate(HubPrefixConfig config, HubAdapter adapter, int hidden, AttentionKind kind, int layer) : SiteAdapter
{
    private readonly DenseLinear _gate = new(hidden, config.SharedGating ? 1 : 2);

    public override IEnumerable<(string Name, Weight Weight)> State => _gate.State;

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var prefixes = Prefixes(call.Batch).ToList();
        if (prefixes.Count > 0)
        {
            using var scope = NewDisposeScope();
            foreach (var (sequence, gate) in SequenceMeans.Of(_gate.Forward(x).sigmoid(), call.Batch, call.Run))
            {
                prefixes.ForEach(prefix => prefix.Weigh(layer, sequence, gate.alias()));
            }
        }

        return call.Next(x);
    }

    public override void Initialize(Site site, Generator generator) => _gate.Initialize(LinearStart.Torch, generator, site.Weight.Value.device);

    private IEnumerable<GatedPrefix> Prefixes(ForwardBatch batch) =>
        (kind is AttentionKind.Cross ? batch.Sources.SelectMany(source => source.Prefixes) : batch.Prefixes).OfType<GatedPrefix>().Where(prefix => prefix.Belongs(adapter, kind));
}
