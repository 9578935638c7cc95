namespace PeftServer.Engine.Evaluation;

/// <summary>A named thing in a sentence: from the word <paramref name="Start"/> up to <paramref name="End"/>, which is not of it.</summary>
public readonly record struct EntitySpan(int Sentence, string Type, int Start, int End);

/// <summary>
/// Entities by their tags (B-PER, I-PER, O), counted as seqeval does: one is right when type, beginning and end are. Lenient, as the CoNLL script, an I after
/// anything but its own kind begins an entity; strictly (IOB2) only B does.
/// </summary>
public static class EntityScore
{
    /// <summary>Over all types together.</summary>
    public static FScore Micro(IReadOnlyList<IReadOnlyList<string>> truth, IReadOnlyList<IReadOnlyList<string>> guess, bool strict = false) =>
        Score(Entities(truth, strict), Entities(guess, strict));

    /// <summary>For each type that one side has.</summary>
    public static IReadOnlyDictionary<string, FScore> ByType(IReadOnlyList<IReadOnlyList<string>> truth, IReadOnlyList<IReadOnlyList<string>> guess, bool strict = false)
    {
        var (wanted, given) = (Entities(truth, strict), Entities(guess, strict));
        return wanted.Concat(given).Select(entity => entity.Type).Distinct().ToDictionary(
            type => type, type => Score([.. wanted.Where(entity => entity.Type == type)], [.. given.Where(entity => entity.Type == type)]));
    }

    /// <summary>The entities that tags mark.</summary>
    public static IReadOnlyList<EntitySpan> Entities(IReadOnlyList<IReadOnlyList<string>> sentences, bool strict = false) =>
        [.. sentences.SelectMany((tags, sentence) => Entities(tags, sentence, strict))];

    private static IEnumerable<EntitySpan> Entities(IReadOnlyList<string> tags, int sentence, bool strict)
    {
        for (var start = 0; start < tags.Count; start++)
        {
            var (prefix, type) = Parse(tags[start]);
            var begins = prefix == 'B' || (!strict && prefix == 'I' && !(start > 0 && Parse(tags[start - 1]) is var before && before.Prefix != 'O' && before.Type == type));
            if (!begins)
            {
                continue;
            }

            var end = start + 1;
            while (end < tags.Count && Parse(tags[end]) == ('I', type))
            {
                end++;
            }

            yield return new EntitySpan(sentence, type, start, end);
        }
    }

    private static (char Prefix, string Type) Parse(string tag) => tag is "" or "O" ? ('O', "") : (tag[0], tag.Length > 2 ? tag[2..] : "_");

    private static FScore Score(IReadOnlyList<EntitySpan> truth, IReadOnlyList<EntitySpan> guess)
    {
        var right = truth.Intersect(guess).Count();
        return new FScore(guess.Count == 0 ? 0 : (double)right / guess.Count, truth.Count == 0 ? 0 : (double)right / truth.Count);
    }
}
