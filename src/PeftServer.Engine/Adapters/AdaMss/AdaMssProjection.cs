using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaMss;

/// <summary>The outputs of group i gain BᵢAᵢVx at a projection, V the first singular directions of the weight, its bias as a last column.</summary>
internal sealed class AdaMssProjection : AdditiveSiteAdapter
{
    private readonly AdaMssConfig _config;
    private readonly int _inFeatures;
    private readonly bool _hasBias;
    private readonly Weight adamss_newB; // V: (r, in), or (r, in + 1)
    private readonly IReadOnlyList<Group> _groups;
    private readonly Weight _order; // (out): where in the groups' outputs, one after another, an output stands

    public AdaMssProjection(AdaMssConfig config, Projection site)
    {
        (_config, _inFeatures, _hasBias) = (config, site.InFeatures, site.Bias is not null);
        var width = site.InFeatures + (_hasBias ? 1 : 0);
        var r = Math.Min(config.R, Math.Min(width, site.OutFeatures));
        adamss_newB = new Weight(r, width) { IsBuffer = true };
        _order = new Weight(site.OutFeatures);
        _groups = site.Weight.IsLoaded ? Find(site) : Nominal(site, r);
        Importance = config.UseAsa ? [.. _groups.Select(group => new GroupImportance(group.A, group.B))] : [];
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
    [
        .. _groups.Select((group, i) => ($"adamss_A.{i}", group.A)), .. _groups.Select((group, i) => ($"adamss_B.{i}", group.B)),
        (nameof(adamss_newB), adamss_newB),
    ];

    public override IEnumerable<Weight> Derived => [_order, .. Importance.SelectMany(group => group.Derived)];

    /// <summary>How much each group matters; nothing without use_asa.</summary>
    public IReadOnlyList<GroupImportance> Importance { get; }

    internal override IEnumerable<(string Name, Weight Weight)> Progress =>
        Importance.SelectMany((group, i) => group.Progress.Select(state => ($"{i}.{state.Name}", state.Weight)));

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var directions = adamss_newB.Value.to(x.dtype);
        var low = F.linear(x, directions.narrow(1, 0, _inFeatures)); // [n, r]
        low = _hasBias ? low.Plus(directions.select(1, _inFeatures)) : low;
        var outputs = _groups.Select(group => F.linear(F.linear(low, group.A.Value.to(x.dtype)), group.B.Value.to(x.dtype))).ToArray();
        return cat(outputs, 1).index_select(1, _order.Value).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        var (left, right) = Directions((Projection)site);
        adamss_newB.Set(right.to(device));
        foreach (var group in _groups)
        {
            var own = left.index_select(0, tensor(group.Outputs)); // [members, r]
            var principal = LowRank.Svd(own).U.narrow(1, 0, group.A.Shape[0]); // [members, rank]
            group.A.Set(linalg.qr(own.t().mm(principal)).Q.t().contiguous().to(device));
            group.B.Normal(_config.InitWeights == "orthogonal" ? 0 : 0.01, generator, device);
        }
    }

    public override void Prepare(Site site)
    {
        var order = new long[_order.Shape[0]];
        foreach (var (output, place) in _groups.SelectMany(group => group.Outputs).Select((output, place) => (output, place)))
        {
            order[output] = place;
        }

        _order.Set(tensor(order, device: site.Weight.Value.device));
    }

    internal override void Resume()
    {
        foreach (var group in Importance)
        {
            group.Resume();
        }
    }

    public override Tensor Merge(Site site, Tensor weight) => weight.to(ScalarType.Float32).Plus(Change().narrow(1, 0, _inFeatures));

    public override Tensor? MergeBias(Site site, Tensor? bias) => bias?.to(ScalarType.Float32).Plus(Change().select(1, _inFeatures));

    /// <summary>What the weight gains, with the bias as its last column where there is one.</summary>
    private Tensor Change() =>
        cat([.. _groups.Select(group => group.B.Value.mm(group.A.Value).mm(adamss_newB.Value))], 0).index_select(0, _order.Value);

    /// <summary>U [out, r] and V [r, width] of the weight, on the CPU, so that every device finds the same groups.</summary>
    private (Tensor Left, Tensor Right) Directions(Projection site)
    {
        using var generator = new Generator((ulong)_config.RandomSeed);
        var weight = site.DenseWeight().to(ScalarType.Float32).cpu();
        weight = _hasBias ? cat([weight, site.Bias!.Value.to(ScalarType.Float32).cpu().unsqueeze(1)], 1) : weight;
        var (u, _, vt) = LowRank.RandomizedSvd(weight, adamss_newB.Shape[0], 2, generator);
        return (u, vt);
    }

    private List<Group> Find(Projection site)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var left = Directions(site).Left; // [out, r]
        var labels = KMeans.Labels(left.contiguous().data<float>().ToArray(), (int)left.size(0), (int)left.size(1), Math.Min(_config.NumSubspaces, site.OutFeatures));
        var groups = new List<Group>();
        foreach (var outputs in labels.Select((label, output) => (label, Output: (long)output)).GroupBy(entry => entry.label).OrderBy(group => group.Key).Select(group => group.Select(entry => entry.Output).ToArray()))
        {
            groups.Add(new Group(outputs, RankOf(left.index_select(0, tensor(outputs))), (int)left.size(1), nominal: false));
        }

        return groups;
    }

    private int RankOf(Tensor own)
    {
        var most = (int)Math.Min(_config.SubspaceRank, Math.Min(own.size(0), own.size(1)));
        if (!_config.UseDynamicRank)
        {
            return most;
        }

        var values = LowRank.Svd(own).S;
        var squares = values.mul(values);
        return Math.Max(1, Math.Min(most, (int)squares.gt(squares[0].Times(_config.SvdThreshold)).sum().item<long>()));
    }

    /// <summary>Groups of one size, for a model of shapes alone.</summary>
    private List<Group> Nominal(Projection site, int r)
    {
        var count = Math.Min(_config.NumSubspaces, site.OutFeatures);
        return [.. Enumerable.Range(0, site.OutFeatures).GroupBy(output => output % count)
            .Select(group => new Group([.. group.Select(output => (long)output)], Math.Min(_config.SubspaceRank, r), r, nominal: true))];
    }

    /// <summary>Outputs that share an update: A [rank, r], B [outputs, rank].</summary>
    private sealed class Group(long[] outputs, int rank, int r, bool nominal)
    {
        public long[] Outputs { get; } = outputs;

        public Weight A { get; } = new(rank, r) { Trainable = true, IsNominal = nominal };

        public Weight B { get; } = new(outputs.Length, rank) { Trainable = true, IsNominal = nominal };
    }
}
