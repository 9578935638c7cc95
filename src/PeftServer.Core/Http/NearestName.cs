namespace PeftServer.Core.Http;

/// <summary>Finds what a misspelt name was meant to be.</summary>
public static class NearestName
{
    /// <summary>The known name with the fewest edits to <paramref name="name"/>, or null when none comes near.</summary>
    public static string? Of(string name, IEnumerable<string> known)
    {
        if (name.Length > 100)
        {
            return null; // no typo of ours, and the distance costs length times length
        }

        var best = known
            .Select(candidate => (Name: candidate, Edits: Edits(name.ToLowerInvariant(), candidate.ToLowerInvariant())))
            .OrderBy(entry => entry.Edits)
            .FirstOrDefault();
        return best.Name is not null && best.Edits <= Math.Max(2, best.Name.Length / 3) ? best.Name : null;
    }

    /// <summary><c>" Did you mean 'x'?"</c>, or the list of names when it is short, or nothing.</summary>
    public static string Hint(string name, IReadOnlyCollection<string> known) =>
        Of(name, known) is { } nearest ? $" Did you mean '{nearest}'?"
        : known.Count is > 0 and <= 12 ? $" Known here: {string.Join(", ", known)}."
        : "";

    // Damerau-Levenshtein, the variant that counts a swap of neighbours once: "lora_aplha" is one edit from "lora_alpha".
    private static int Edits(string a, string b)
    {
        var rows = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
        {
            for (var j = 0; j <= b.Length; j++)
            {
                rows[i, j] = i == 0 || j == 0 ? i + j : Cheapest(i, j);
            }
        }

        return rows[a.Length, b.Length];

        int Cheapest(int i, int j)
        {
            var substitution = rows[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            var best = Math.Min(substitution, Math.Min(rows[i - 1, j], rows[i, j - 1]) + 1);
            var swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            return swapped ? Math.Min(best, rows[i - 2, j - 2] + 1) : best;
        }
    }
}
