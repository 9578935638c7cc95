using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>x + Rᵀ(act(Sx + b) − Rx) on the first and the last tokens of each sequence; one unit for each end, or one for both.</summary>
internal sealed class ReftPart : HiddenPart
{
    private readonly ReftConfig _config;
    private readonly Unit[] _units;

    public ReftPart(ReftConfig config, int width)
    {
        _config = config;
        _units = [.. Enumerable.Range(0, config.TiedWeights ? 1 : 2).Select(_ => new Unit(config, width))];
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        _units.SelectMany((unit, index) => unit.State.Select(state => ($"units.{index}.{state.Name}", state.Weight)));

    public override Tensor Forward(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        using var scope = NewDisposeScope();
        var (prefix, suffix) = Places(batch, run);
        var y = Intervene(x, x, prefix, _units[0], batch);
        return Intervene(y, x, suffix, _units[^1], batch).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Generator generator, Device device) => Array.ForEach(_units, unit => unit.Initialize(generator, device));

    public override void Prepare() => Array.ForEach(_units, unit => unit.Rows?.Prepare());

    public override void Settle() => Array.ForEach(_units, unit => unit.Rows?.Settle());

    /// <summary>Rows of the first tokens and of the last ones; in decoding only rows that are new.</summary>
    private (long[] Prefix, long[] Suffix) Places(ForwardBatch batch, AdapterRun run)
    {
        var (prefix, suffix) = (new List<long>(), new List<long>());
        foreach (var sequence in batch.SequencesOf(run))
        {
            prefix.AddRange(Enumerable.Range(0, sequence.Count).Where(i => sequence.Past + i < _config.PrefixPositions).Select(i => (long)sequence.Start + i));
            var count = Math.Min(_config.SuffixPositions, sequence.Count);
            suffix.AddRange(Enumerable.Range(sequence.Start + sequence.Count - count, count).Select(i => (long)i));
        }

        return ([.. prefix], [.. suffix]);
    }

    private Tensor Intervene(Tensor into, Tensor x, long[] places, Unit unit, ForwardBatch batch)
    {
        if (places.Length == 0)
        {
            return into;
        }

        var at = tensor(places, device: x.device);
        var states = Dropout.Apply(unit.Forward(x.index_select(0, at)), _config.Dropout, batch.Dropout);
        return into.index_copy(0, at, states);
    }

    /// <summary>The intervention of one end.</summary>
    private sealed class Unit
    {
        private readonly ReftConfig _config;
        private readonly DenseLinear _source;
        private readonly DenseLinear? _projection;
        private readonly Func<Tensor, Tensor> _act;

        public Unit(ReftConfig config, int width)
        {
            _config = config;
            _source = new DenseLinear(width, config.R);
            (_projection, Rows) = config.Orthogonality ? ((DenseLinear?)null, new OrthogonalRows(config.R, width)) : (new DenseLinear(width, config.R, hasBias: false), null);
            _act = config.NonLinearity is null ? static x => x : HubActivation.Of(config.NonLinearity);
        }

        public OrthogonalRows? Rows { get; }

        public IEnumerable<(string Name, Weight Weight)> State =>
            _source.State.Select(state => ($"learned_source.{state.Name}", state.Weight))
                .Concat((Rows?.State ?? _projection!.State).Select(state => ($"projection.{state.Name}", state.Weight)));

        public Tensor Forward(Tensor x)
        {
            var r = (Rows?.Value() ?? _projection!.Weight.Value).to(x.dtype); // [r, width]
            var source = _act(_source.Forward(x)); // [m, r]
            source = _config.SubtractProjection ? source.Minus(F.linear(x, r)) : source;
            return x.Plus(source.mm(r));
        }

        public void Initialize(Generator generator, Device device)
        {
            _source.Initialize(LinearStart.Torch, generator, device);
            _projection?.Initialize(LinearStart.Torch, generator, device);
            Rows?.Initialize(generator, device);
        }
    }
}
