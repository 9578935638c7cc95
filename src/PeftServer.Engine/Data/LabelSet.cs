using System.Globalization;

namespace PeftServer.Engine.Data;

/// <summary>The names of classes or tags, by their numbers.</summary>
public static class LabelSet
{
    /// <summary>
    /// The labels of a file: numbers become 0 to the highest, names are sorted, so that the order of rows does not matter. <paramref name="format"/> is that of
    /// classification or of token classification.
    /// </summary>
    public static IReadOnlyList<string> Read(Stream stream, DatasetFormat format, CancellationToken cancellationToken = default)
    {
        var found = new HashSet<string>(StringComparer.Ordinal);
        foreach (var (_, row) in DatasetFile.ReadRows(stream, new FaultList(0), format, cancellationToken))
        {
            found.UnionWith(row switch
            {
                ClassRow text => [text.Label],
                TaggedRow words => words.Tags,
                _ => [],
            });
        }

        return found.Count > 0 && found.All(label => int.TryParse(label, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number < 100_000)
            ? [.. Enumerable.Range(0, found.Max(label => int.Parse(label, CultureInfo.InvariantCulture)) + 1).Select(number => number.ToString(CultureInfo.InvariantCulture))]
            : [.. found.Order(StringComparer.Ordinal)];
    }

    /// <summary>The number of a label, which the file gives by its name or its number; −1 where it is unknown.</summary>
    internal static int IndexOf(IReadOnlyList<string> labels, string label)
    {
        for (var i = 0; i < labels.Count; i++)
        {
            if (labels[i] == label)
            {
                return i;
            }
        }

        return int.TryParse(label, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number < labels.Count ? number : -1;
    }

    internal static string Unknown(IReadOnlyList<string> labels, string label) =>
        $"The label '{label}' is not among {string.Join(", ", labels.Take(20))}{(labels.Count > 20 ? ", …" : "")}, the labels of the training file.";
}
