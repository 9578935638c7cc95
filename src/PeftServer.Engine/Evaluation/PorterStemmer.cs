namespace PeftServer.Engine.Evaluation;

/// <summary>
/// Porter's stemmer of English (<see href="https://tartarus.org/martin/PorterStemmer/def.txt"/>) with the deviations of NLTK, which rouge-score stems by:
/// a short list of irregular words, words of up to two letters as they are, "ies" and "ied" of four letters, y after a consonant.
/// </summary>
internal static class PorterStemmer
{
    private static readonly Dictionary<string, string> Irregular = new()
    {
        ["sky"] = "sky",
        ["skies"] = "sky",
        ["dying"] = "die",
        ["lying"] = "lie",
        ["tying"] = "tie",
        ["news"] = "news",
        ["innings"] = "inning",
        ["inning"] = "inning",
        ["outings"] = "outing",
        ["outing"] = "outing",
        ["cannings"] = "canning",
        ["canning"] = "canning",
        ["howe"] = "howe",
        ["proceed"] = "proceed",
        ["exceed"] = "exceed",
        ["succeed"] = "succeed",
    };

    private static readonly (string Suffix, string Replacement)[] SecondStep =
    [
        ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"),
        ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"),
        ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful"),
    ];

    private static readonly (string Suffix, string Replacement)[] ThirdStep =
        [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

    private static readonly string[] FourthStep =
    [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize",
    ];

    /// <summary>The stem of a word in lower case.</summary>
    public static string Stem(string word) => Irregular.TryGetValue(word, out var stem) ? stem
        : word.Length <= 2 ? word
        : Doubled(Silent(Residual(Derived(Suffixed(EndInY(Participle(Plural(word))))))));

    private static string Plural(string word) =>
        Ends(word, "ies") && word.Length == 4 ? word[..^1]
        : Ends(word, "sses") ? word[..^2]
        : Ends(word, "ies") ? word[..^2]
        : Ends(word, "ss") ? word
        : Ends(word, "s") ? word[..^1]
        : word;

    private static string Participle(string word)
    {
        if (Ends(word, "ied"))
        {
            return word.Length == 4 ? word[..^1] : word[..^2];
        }

        if (Ends(word, "eed"))
        {
            return Measure(word[..^3]) > 0 ? word[..^1] : word;
        }

        var cut = Ends(word, "ed") ? 2 : Ends(word, "ing") ? 3 : 0;
        var stem = word[..^cut];
        return cut == 0 || !HasVowel(stem) ? word
            : Ends(stem, "at") || Ends(stem, "bl") || Ends(stem, "iz") ? stem + "e"
            : EndsDouble(stem) ? (stem[^1] is 'l' or 's' or 'z' ? stem : stem[..^1])
            : Measure(stem) == 1 && EndsShort(stem) ? stem + "e"
            : stem;
    }

    private static string EndInY(string word) =>
        Ends(word, "y") && word.Length > 2 && IsConsonant(word, word.Length - 2) ? word[..^1] + "i" : word;

    private static string Suffixed(string word)
    {
        if (Ends(word, "alli") && Measure(word[..^4]) > 0)
        {
            return Suffixed(word[..^2]);
        }

        foreach (var (suffix, replacement) in SecondStep)
        {
            if (Ends(word, suffix))
            {
                return Measure(word[..^suffix.Length]) > 0 ? word[..^suffix.Length] + replacement : word;
            }
        }

        return Ends(word, "logi") && Measure(word[..^3]) > 0 ? word[..^1] : word;
    }

    private static string Derived(string word)
    {
        foreach (var (suffix, replacement) in ThirdStep)
        {
            if (Ends(word, suffix))
            {
                return Measure(word[..^suffix.Length]) > 0 ? word[..^suffix.Length] + replacement : word;
            }
        }

        return word;
    }

    private static string Residual(string word)
    {
        foreach (var suffix in FourthStep)
        {
            if (Ends(word, suffix))
            {
                var stem = word[..^suffix.Length];
                return Measure(stem) > 1 && (suffix != "ion" || Ends(stem, "s") || Ends(stem, "t")) ? stem : word;
            }
        }

        return word;
    }

    private static string Silent(string word)
    {
        if (!Ends(word, "e"))
        {
            return word;
        }

        var stem = word[..^1];
        return Measure(stem) > 1 || (Measure(stem) == 1 && !EndsShort(stem)) ? stem : word;
    }

    private static string Doubled(string word) => Ends(word, "ll") && Measure(word[..^1]) > 1 ? word[..^1] : word;

    private static bool Ends(string word, string suffix) => word.EndsWith(suffix, StringComparison.Ordinal);

    /// <summary>How often consonants follow vowels.</summary>
    private static int Measure(string stem) =>
        Enumerable.Range(1, Math.Max(0, stem.Length - 1)).Count(i => !IsConsonant(stem, i - 1) && IsConsonant(stem, i));

    private static bool HasVowel(string stem) => Enumerable.Range(0, stem.Length).Any(i => !IsConsonant(stem, i));

    private static bool EndsDouble(string word) => word.Length >= 2 && word[^1] == word[^2] && IsConsonant(word, word.Length - 1);

    /// <summary>Consonant, vowel, consonant but w, x, y; NLTK also: a vowel and a consonant that are the whole word.</summary>
    private static bool EndsShort(string word) =>
        (word.Length >= 3 && IsConsonant(word, word.Length - 3) && !IsConsonant(word, word.Length - 2) && IsConsonant(word, word.Length - 1) && word[^1] is not ('w' or 'x' or 'y'))
        || (word.Length == 2 && !IsConsonant(word, 0) && IsConsonant(word, 1));

    private static bool IsConsonant(string word, int i) => word[i] switch
    {
        'a' or 'e' or 'i' or 'o' or 'u' => false,
        'y' => i == 0 || !IsConsonant(word, i - 1),
        _ => true,
    };
}
