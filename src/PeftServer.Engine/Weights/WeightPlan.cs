using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Weights;

/// <summary>What a model wants of a checkpoint, and the names by which a checkpoint may hold it.</summary>
public sealed class WeightPlan
{
    public required IReadOnlyList<Weight> Weights { get; init; }

    /// <summary>Further names of weights that modules share.</summary>
    public IReadOnlyList<(string Name, Weight Weight)> OtherNames { get; init; } = [];

    /// <summary>Weights that a checkpoint may hold in pieces.</summary>
    public IReadOnlyDictionary<Weight, WeightPieces> Pieces { get; init; } = new Dictionary<Weight, WeightPieces>();

    /// <summary>Today's name of a tensor that older checkpoints name otherwise.</summary>
    public Func<string, string> Rename { get; init; } = name => name;

    /// <summary>Name of the body under its head. A checkpoint of the body alone leaves it out; a body alone meets it in others' checkpoints.</summary>
    public string BasePrefix { get; init; } = "";

    /// <summary>Whether nothing is lost when a tensor of this name has no place.</summary>
    public Func<string, bool> Ignores { get; init; } = _ => false;

    /// <summary>Whether the model may draw this weight itself: a head that the checkpoint has not got.</summary>
    public Func<Weight, bool> MayBeMissing { get; init; } = _ => false;

    /// <summary>In what a weight is to be held. It is packed as soon as it is there, so that the whole is never in memory.</summary>
    public Func<Weight, BaseQuantization> Quantization { get; init; } = _ => BaseQuantization.None;

    /// <summary>Finds the weights' tensors among the names of a checkpoint.</summary>
    public WeightPlacement Place(IEnumerable<string> names)
    {
        var byName = Weights.Select(weight => (Name: weight.Path, Weight: weight)).Concat(OtherNames).ToDictionary(entry => entry.Name, entry => entry.Weight);
        var pieces = Pieces.SelectMany(entry => entry.Value.Rows.SelectMany(row => row)).ToHashSet();
        var stored = new Dictionary<string, string>(); // by the model's name
        var (unexpected, ignored) = (new List<string>(), new List<string>());
        foreach (var name in names)
        {
            var wanted = Wanted(Rename(name), byName, pieces);
            if (wanted is not null && stored.TryAdd(wanted, name))
            {
                continue;
            }

            (Ignores(name) ? ignored : unexpected).Add(name);
        }

        var aliases = byName.ToLookup(entry => entry.Value, entry => entry.Key);
        var found = new Dictionary<Weight, IReadOnlyList<string>>();
        var inPieces = new Dictionary<Weight, IReadOnlyList<IReadOnlyList<string>>>();
        var missing = new List<Weight>();
        foreach (var weight in Weights)
        {
            if (aliases[weight].Where(stored.ContainsKey).ToList() is { Count: > 0 } own)
            {
                found[weight] = [.. own.Select(name => stored[name])];
            }
            else if (Pieces.TryGetValue(weight, out var parts) && parts.Rows.All(row => row.All(stored.ContainsKey)))
            {
                inPieces[weight] = [.. parts.Rows.Select(row => row.Select(name => stored[name]).ToList())];
            }
            else
            {
                missing.Add(weight);
            }
        }

        return new WeightPlacement(found, inPieces, missing, unexpected, ignored);
    }

    private string? Wanted(string name, Dictionary<string, Weight> byName, HashSet<string> pieces)
    {
        bool IsKnown(string candidate) => byName.ContainsKey(candidate) || pieces.Contains(candidate);
        if (IsKnown(name) || BasePrefix.Length == 0)
        {
            return IsKnown(name) ? name : null;
        }

        var (longer, shorter) = ($"{BasePrefix}.{name}", name.StartsWith($"{BasePrefix}.", StringComparison.Ordinal) ? name[(BasePrefix.Length + 1)..] : name);
        return IsKnown(longer) ? longer : IsKnown(shorter) ? shorter : null;
    }
}

/// <summary>
/// Names of the tensors that together are one weight: those of a row lie under one another, and the rows are stacked along a new
/// first dimension. So older checkpoints hold the experts of a layer.
/// </summary>
public sealed record WeightPieces(IReadOnlyList<IReadOnlyList<string>> Rows);

/// <summary>Where a checkpoint holds a model's weights, by the checkpoint's own names.</summary>
/// <param name="Whole">Names of each weight's tensor; several hold the same values.</param>
/// <param name="InPieces">Weights that are put together, as <see cref="WeightPieces"/> says.</param>
/// <param name="Missing">Weights that it does not hold.</param>
/// <param name="Unexpected">Names that mean nothing to the model.</param>
/// <param name="Ignored">Names that the model knows and does not use.</param>
public sealed record WeightPlacement(
    IReadOnlyDictionary<Weight, IReadOnlyList<string>> Whole, IReadOnlyDictionary<Weight, IReadOnlyList<IReadOnlyList<string>>> InPieces,
    IReadOnlyList<Weight> Missing, IReadOnlyList<string> Unexpected, IReadOnlyList<string> Ignored);
