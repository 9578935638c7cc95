using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Frod;

/// <summary>V [in, in] of the modules of one kind, and the places [2, count] of their S.</summary>
internal sealed record SharedBasis(string Kind, IReadOnlyList<Projection> Members, Weight V, Weight Indices, Weight Size)
{
    public long Places => Indices.Shape[1];
}

/// <summary>The bases of all kinds of modules: those that play one part in every layer share one.</summary>
internal sealed class SharedBases : SharedWeights
{
    private readonly FrodConfig _config;
    private readonly List<SharedBasis> _bases;

    public SharedBases(FrodConfig config, IReadOnlyList<Projection> sites)
    {
        _config = config;
        _bases = [.. sites.GroupBy(site => KindOf(site.Path)).OrderBy(group => group.Key, StringComparer.Ordinal).Select(group => Room(config, group.Key, [.. group]))];
    }

    public override IEnumerable<(string Key, Weight Weight)> State => !_config.SaveProjection ? [] : _bases.SelectMany(basis => new[]
    {
        ($"base_model.frod_V.{basis.Kind}", basis.V), ($"base_model.frod_s_indices.{basis.Kind}", basis.Indices), ($"base_model.frod_s_size.{basis.Kind}", basis.Size),
    });

    public override IEnumerable<Weight> Derived => _bases.SelectMany(basis => new[] { basis.V, basis.Indices, basis.Size });

    public SharedBasis Of(Projection site) => _bases.Single(basis => basis.Members.Contains(site));

    public override void Initialize(PretrainedModel model, Generator generator) => Make(model.Device);

    public override void Prepare(PretrainedModel model)
    {
        if (!_config.SaveProjection)
        {
            Make(model.Device);
        }
    }

    private void Make(Device device)
    {
        using var generator = new Generator((ulong)_config.ProjectionPrngKey);
        foreach (var basis in _bases)
        {
            using var scope = NewDisposeScope();
            var side = basis.V.Shape[0];
            basis.V.Set(Joint(basis.Members).to(device));
            var chosen = randperm(side * (side - 1), dtype: ScalarType.Int64, generator: generator).narrow(0, 0, basis.Places).data<long>().ToArray();
            var rows = Array.ConvertAll(chosen, place => place / (side - 1));
            long[] columns = [.. chosen.Zip(rows, (place, row) => (place % (side - 1)) is var column && column >= row ? column + 1 : column)]; // the diagonal is left out
            basis.Indices.Set(tensor((long[])[.. rows, .. columns]).view(2, -1).to(device, copy: true));
            basis.Size.Set(tensor((long[])[side, side]).to(device, copy: true));
        }
    }

    /// <summary>A basis in which all members are simple at once: from the mean of the inverses of what each has of their common QR.</summary>
    private Tensor Joint(IReadOnlyList<Projection> members)
    {
        var matrices = members.Select(member => member.DenseWeight().to(ScalarType.Float32).cpu()).ToArray();
        var stacked = cat(matrices, 0); // [all out, in]
        if (stacked.size(0) < stacked.size(1))
        {
            return linalg.svd(stacked, fullMatrices: true).Vh.t();
        }

        var (q, r) = linalg.qr(stacked);
        var unit = eye(r.size(1)).Times(_config.RegularizationAlpha);
        var (sum, start) = (zeros_like(unit), 0L);
        foreach (var matrix in matrices)
        {
            var own = q.narrow(0, start, matrix.size(0));
            sum = sum.Plus(linalg.inv(own.t().mm(own).Plus(unit)));
            start += matrix.size(0);
        }

        return r.t().mm(linalg.eigh(sum.Times(1.0 / matrices.Length)).Item2);
    }

    private static SharedBasis Room(FrodConfig config, string kind, IReadOnlyList<Projection> members)
    {
        long side = members[0].InFeatures;
        if (members.FirstOrDefault(member => member.InFeatures != side) is { } other)
        {
            throw new AdapterException("target_modules", $"{members[0].Path} and {other.Path} are of one kind but take inputs of different widths, so they cannot share a basis.");
        }

        var places = Math.Min((long)(side * side * config.SparseRate), side * (side - 1));
        places = config.SparseRate > 0 && side > 1 ? Math.Max(1, places) : places;
        return new(kind, members, new Weight(side, side) { IsBuffer = true }, new Weight(2, places) { IsBuffer = true, ElementSize = sizeof(long) }, new Weight(2) { IsBuffer = true, ElementSize = sizeof(long) });
    }

    /// <summary>The part that a module plays in its layer: the last two names of its path, joined as PEFT joins them.</summary>
    private static string KindOf(string path)
    {
        var names = path.Split('.');
        if (names.Length == 1 || names[^2].All(char.IsAsciiDigit))
        {
            return names[^1];
        }

        var kind = $"{names[^2]}_{names[^1]}";
        return kind == "output_dense" && names.Length >= 3 && names[^3] == "attention" ? "attention_output" : kind;
    }
}
