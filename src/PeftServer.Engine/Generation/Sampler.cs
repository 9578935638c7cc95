namespace PeftServer.Engine.Generation;

/// <summary>Chooses a token from scores, on the CPU, in the order that transformers applies its processors.</summary>
/// <param name="parameters">How.</param>
/// <param name="prompt">The tokens that stand before the first one.</param>
internal sealed class Sampler(SamplingParameters parameters, IReadOnlyList<int> prompt)
{
    private readonly SeededRandom _random = new(parameters.Seed ?? (ulong)Random.Shared.NextInt64());
    private readonly Dictionary<int, int> _counts = [];
    private readonly HashSet<int> _seen = parameters.RepetitionPenalty == 1 ? [] : [.. prompt];
    private int _chosen;

    /// <summary>The token chosen from <paramref name="scores"/> (which are changed), and its log-probability and rivals where wanted.</summary>
    public SampledToken Next(Span<float> scores)
    {
        Penalise(scores);
        var report = parameters.TopLogProbabilities is { } rivals ? LogProbabilities.Of(scores, rivals) : null;
        var chosen = parameters.Temperature == 0 ? Likeliest(scores) : Draw(scores);
        _counts[chosen] = _counts.GetValueOrDefault(chosen) + 1;
        _seen.Add(chosen);
        _chosen++;
        return new SampledToken(chosen, report?.Of(chosen), report?.Top);
    }

    private void Penalise(Span<float> scores)
    {
        foreach (var (token, bias) in parameters.LogitBias ?? new Dictionary<int, double>())
        {
            if (token >= 0 && token < scores.Length)
            {
                scores[token] += (float)bias;
            }
        }

        if (_chosen < parameters.MinTokens)
        {
            foreach (var token in parameters.StopTokens)
            {
                if (token < scores.Length)
                {
                    scores[token] = float.NegativeInfinity;
                }
            }
        }

        if (parameters.RepetitionPenalty != 1)
        {
            foreach (var token in _seen)
            {
                scores[token] *= (float)(scores[token] > 0 ? 1 / parameters.RepetitionPenalty : parameters.RepetitionPenalty);
            }
        }

        foreach (var (token, count) in _counts)
        {
            scores[token] -= (float)((parameters.FrequencyPenalty * count) + parameters.PresencePenalty);
        }
    }

    private int Draw(Span<float> scores)
    {
        var candidates = Candidates(scores);
        var highest = candidates[0].Score;
        var weights = Array.ConvertAll(candidates, candidate => Math.Exp((candidate.Score - highest) / parameters.Temperature));
        var total = weights.Sum();
        var kept = Nucleus(weights, total);
        while (weights[kept - 1] < parameters.MinP * weights[0])
        {
            kept--;
        }

        var at = _random.NextDouble() * weights.AsSpan(0, kept).ToArray().Sum();
        for (var i = 0; i < kept; i++)
        {
            at -= weights[i];
            if (at < 0)
            {
                return candidates[i].Token;
            }
        }

        return candidates[kept - 1].Token;
    }

    /// <summary>Tokens by falling score, cut to top_k.</summary>
    private (int Token, float Score)[] Candidates(Span<float> scores)
    {
        var candidates = new (int Token, float Score)[scores.Length];
        for (var i = 0; i < scores.Length; i++)
        {
            candidates[i] = (i, scores[i]);
        }

        Array.Sort(candidates, static (a, b) => a.Score == b.Score ? a.Token.CompareTo(b.Token) : b.Score.CompareTo(a.Score));
        return parameters.TopK > 0 && parameters.TopK < candidates.Length ? candidates[..parameters.TopK] : candidates;
    }

    /// <summary>How many of the likeliest it takes to reach top_p: those before whom less than it has been seen.</summary>
    private int Nucleus(double[] weights, double total)
    {
        if (parameters.TopP >= 1)
        {
            return weights.Length;
        }

        var (kept, seen) = (0, 0.0);
        while (kept < weights.Length && seen < parameters.TopP)
        {
            seen += weights[kept++] / total;
        }

        return Math.Max(1, kept);
    }

    private static int Likeliest(ReadOnlySpan<float> scores)
    {
        var best = 0;
        for (var i = 1; i < scores.Length; i++)
        {
            best = scores[i] > scores[best] ? i : best;
        }

        return best;
    }
}

/// <summary>A chosen token; the rest where log-probabilities are wanted.</summary>
internal sealed record SampledToken(int Id, float? LogProbability, IReadOnlyList<(int Id, float LogProbability)>? Top);

/// <summary>Log-probabilities of a row of scores.</summary>
internal sealed class LogProbabilities
{
    private readonly float[] _scores;
    private readonly double _normaliser;

    private LogProbabilities(float[] scores, double normaliser, IReadOnlyList<(int Id, float LogProbability)> top) =>
        (_scores, _normaliser, Top) = (scores, normaliser, top);

    /// <summary>The likeliest tokens, likeliest first.</summary>
    public IReadOnlyList<(int Id, float LogProbability)> Top { get; }

    public static LogProbabilities Of(ReadOnlySpan<float> scores, int top)
    {
        var highest = float.NegativeInfinity;
        foreach (var score in scores)
        {
            highest = Math.Max(highest, score);
        }

        var sum = 0.0;
        foreach (var score in scores)
        {
            sum += Math.Exp(score - highest);
        }

        var (kept, normaliser) = (scores.ToArray(), highest + Math.Log(sum));
        var best = new PriorityQueue<int, float>();
        for (var i = 0; i < kept.Length && top > 0; i++)
        {
            if (best.Count < top)
            {
                best.Enqueue(i, kept[i]);
            }
            else
            {
                best.EnqueueDequeue(i, kept[i]);
            }
        }

        var list = best.UnorderedItems.OrderByDescending(item => item.Priority).ThenBy(item => item.Element)
            .Select(item => (item.Element, Finite(item.Priority - normaliser))).ToList();
        return new LogProbabilities(kept, normaliser, list);
    }

    public float Of(int token) => Finite(_scores[token] - _normaliser);

    // OpenAI's way of saying "impossible": JSON has no infinity.
    internal static float Finite(double value) => (float)Math.Max(value, -9999.0);
}
