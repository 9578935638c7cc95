using System.Text;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>Characters that are one and the same when case does not matter.</summary>
internal static class CaseFolding
{
    private static readonly Lazy<Dictionary<int, int[]>> Groups = new(Build);

    /// <summary>All characters equal to <paramref name="codePoint"/>, itself included.</summary>
    public static int[] Same(int codePoint) => Groups.Value.GetValueOrDefault(Fold(codePoint)) ?? [codePoint];

    private static int Fold(int codePoint) => codePoint switch
    {
        0x130 or 0x131 => codePoint, // the dotted and the dotless i fold only in Turkish
        _ when Rune.TryCreate(codePoint, out var rune) => Rune.ToLowerInvariant(Rune.ToUpperInvariant(rune)).Value,
        _ => codePoint,
    };

    private static Dictionary<int, int[]> Build()
    {
        var groups = new Dictionary<int, List<int>>();
        for (var c = 0; c < 0x1F000; c++)
        {
            var fold = Fold(c);
            if (fold != c)
            {
                if (!groups.TryGetValue(fold, out var group))
                {
                    groups[fold] = group = [fold];
                }

                group.Add(c);
            }
        }

        Join(groups, 's', 0x17F); // long s, Kelvin, Ångström: folded by Unicode, not by case mapping
        Join(groups, 'k', 0x212A);
        Join(groups, 0xE5, 0x212B);
        return groups.ToDictionary(g => g.Key, g => g.Value.Distinct().ToArray());
    }

    private static void Join(Dictionary<int, List<int>> groups, int fold, int member) => groups[fold].Add(member);
}
