namespace PeftServer.Engine.Evaluation;

/// <summary>
/// METEOR of one text against one reference (<see href="https://aclanthology.org/W05-0909/"/>, weights of <see href="https://aclanthology.org/W07-0734/"/>), from 0 to 1, as NLTK's
/// <c>meteor_score</c> with words parted by white space: words are aligned when they are equal in lower case, then when their stems are. With precision P and recall R of
/// the aligned words, in c runs of m words, it is PR / (0.9 P + 0.1 R) · (1 − 0.5 (c/m)³). NLTK's third stage, synonyms out of WordNet, is left out: that
/// data is not part of this server, so synonyms count as different words.
/// </summary>
public static class Meteor
{
    private const double PrecisionWeight = 0.9, PenaltyWeight = 0.5;

    public static double Score(string reference, string candidate)
    {
        var (given, wanted) = (Words(candidate), Words(reference));
        var (givenCount, wantedCount) = (given.Count, wanted.Count);
        var matches = Align(given, wanted);
        matches.AddRange(Align(Stemmed(given), Stemmed(wanted)));
        if (matches.Count == 0)
        {
            return 0;
        }

        matches.Sort();
        var (precision, recall) = ((double)matches.Count / givenCount, (double)matches.Count / wantedCount);
        var runs = 1 + matches.Zip(matches.Skip(1)).Count(pair => pair.Second.Given != pair.First.Given + 1 || pair.Second.Wanted != pair.First.Wanted + 1);
        var mean = precision * recall / ((PrecisionWeight * precision) + ((1 - PrecisionWeight) * recall));
        return mean * (1 - (PenaltyWeight * Math.Pow((double)runs / matches.Count, 3)));
    }

    /// <summary>Takes pairs of equal words out of both lists, each with the last that is left of its equals, and gives their places.</summary>
    private static List<(int Given, int Wanted)> Align(List<(int Place, string Word)> given, List<(int Place, string Word)> wanted)
    {
        var matches = new List<(int, int)>();
        for (var i = given.Count - 1; i >= 0; i--)
        {
            var j = wanted.FindLastIndex(word => word.Word == given[i].Word);
            if (j >= 0)
            {
                matches.Add((given[i].Place, wanted[j].Place));
                given.RemoveAt(i);
                wanted.RemoveAt(j);
            }
        }

        return matches;
    }

    private static List<(int Place, string Word)> Words(string text) =>
        [.. text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Select((word, place) => (place, word.ToLowerInvariant()))];

    private static List<(int Place, string Word)> Stemmed(List<(int Place, string Word)> words) => words.ConvertAll(word => (word.Place, PorterStemmer.Stem(word.Word)));
}
