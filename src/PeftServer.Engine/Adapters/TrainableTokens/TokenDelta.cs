using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.TrainableTokens;

/// <summary>
/// Rows of an embedding that train, or of a head. They take the place of the frozen rows, in the table and in the head that shares it.
/// </summary>
internal sealed class TokenDelta : SiteAdapter
{
    private readonly IReadOnlyList<int> _ids;
    private readonly string _prefix;
    private readonly bool _startsAsBase;
    private readonly Weight trainable_tokens_delta; // (tokens, width)
    private readonly Weight _places; // (count): 1 + the number of the row that stands in for a token, or 0
    private readonly Weight _index; // (tokens)

    /// <param name="site">The table.</param>
    /// <param name="ids">The rows of it that train.</param>
    /// <param name="prefix">What stands before the weight's name in the file.</param>
    /// <param name="startsAsBase">Rows start as the frozen ones; false: at random.</param>
    public TokenDelta(Site site, IReadOnlyList<int> ids, string prefix, bool startsAsBase = true)
    {
        (_ids, _prefix, _startsAsBase) = (ids, prefix, startsAsBase);
        trainable_tokens_delta = new Weight(ids.Count, site.Weight.Shape[1]) { Trainable = true };
        (_places, _index) = (new Weight(site.Weight.Shape[0]), new Weight(ids.Count));
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(_prefix + nameof(trainable_tokens_delta), trainable_tokens_delta)];

    public override IEnumerable<Weight> Derived => [_places, _index];

    public override bool MergesIntoTied => true;

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        if (call.Site is Projection)
        {
            return Scores(x, call);
        }

        using var scope = NewDisposeScope();
        var frozen = call.Next(x); // [n, width]
        var rows = _places.Value.index_select(0, x); // [n]
        var replaced = trainable_tokens_delta.Value.to(frozen.dtype).index_select(0, rows.sub(One).clamp_min(Zero));
        return where(rows.gt(Zero).unsqueeze(1), replaced, frozen).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        using var ids = tensor(_ids.ToArray(), dtype: ScalarType.Int64, device: site.Weight.Value.device);
        trainable_tokens_delta.Set(_startsAsBase
            ? site.Weight.Value.index_select(0, ids).to(ScalarType.Float32)
            : randn(_ids.Count, trainable_tokens_delta.Shape[1], generator: generator).to(site.Weight.Value.device));
    }

    public override void Prepare(Site site)
    {
        var places = new long[_places.Shape[0]];
        for (var i = 0; i < _ids.Count; i++)
        {
            places[_ids[i]] = i + 1;
        }

        var device = site.Weight.Value.device;
        _places.Set(tensor(places, device: device));
        _index.Set(tensor(_ids.ToArray(), dtype: ScalarType.Int64, device: device));
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        weight.to(ScalarType.Float32).index_copy(0, _index.Value, trainable_tokens_delta.Value.to(ScalarType.Float32));

    /// <summary>At a head: the scores of these tokens are made anew.</summary>
    private Tensor Scores(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var scores = F.linear(x, trainable_tokens_delta.Value.to(x.dtype)); // [n, tokens]
        return call.Next(x).index_copy(1, _index.Value, scores).MoveToOuterDisposeScope(); // [n, count]
    }

    private static readonly Scalar One = 1L.ToScalar();
    private static readonly Scalar Zero = 0L.ToScalar();

    /// <summary>The same rows at a head that shares the table.</summary>
    /// <param name="rows">The part at the table.</param>
    /// <param name="saved">Whether the file holds the rows under the head's name too.</param>
    internal sealed class TiedHead(TokenDelta rows, bool saved) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => saved ? rows.State : [];

        public override bool MergesIntoTied => true;

        public override Tensor Forward(Tensor x, in SiteCall call) => rows.Scores(x, call);

        public override void Initialize(Site site, Generator generator)
        {
        }

        public override Tensor Merge(Site site, Tensor weight) => rows.Merge(site, weight);
    }
}
