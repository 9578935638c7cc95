using PeftServer.Engine.Generation;

namespace PeftServer.Engine.Reading;

/// <summary>Tokens to say something about.</summary>
public sealed record ReadingRequest
{
    /// <summary>The text, or a pair of them, special tokens included; at least one token.</summary>
    public required int[] Ids { get; init; }

    /// <summary>Segment of each token, as many as there are tokens; null: 0.</summary>
    public int[]? TypeIds { get; init; }

    /// <summary>The adapter to use; null for the base alone.</summary>
    public AdapterReference? Adapter { get; init; }

    /// <summary>The task the text is of, for adapters that know several; counted from 0.</summary>
    public int Task { get; init; }
}

/// <summary>What a model says: one row of scores for a text, one for each of its tokens, or one vector.</summary>
public sealed record Reading(IReadOnlyList<float[]> Rows);

/// <summary>What a loaded model can take, and what its scores mean.</summary>
/// <param name="MaxLength">Tokens of a text.</param>
/// <param name="Vocabulary">Tokens that there are.</param>
/// <param name="Labels">Names of the scores; empty for vectors and for answers' borders.</param>
/// <param name="Activation">How the scores of a text become probabilities.</param>
public sealed record ReadingLimits(int MaxLength, int Vocabulary, IReadOnlyList<string> Labels, ScoreActivation Activation);

/// <summary>How scores become what people read, as transformers and vLLM choose it.</summary>
public enum ScoreActivation
{
    /// <summary>They stay: the model was made for numbers (<c>"problem_type": "regression"</c>).</summary>
    None,

    /// <summary>Each by itself: any of the labels may be right, or there is one.</summary>
    Sigmoid,

    /// <summary>Together: one of the labels is right.</summary>
    Softmax,
}

/// <summary>The activations, on numbers of the CPU.</summary>
public static class ScoreActivations
{
    extension(ScoreActivation activation)
    {
        /// <summary>Scores as probabilities.</summary>
        public double[] Of(IReadOnlyList<float> scores)
        {
            var highest = scores.Max();
            var total = scores.Sum(score => Math.Exp(score - highest));
            return
            [
                .. scores.Select(score => activation switch
                {
                    ScoreActivation.Softmax => Math.Exp(score - highest) / total,
                    ScoreActivation.Sigmoid => 1 / (1 + Math.Exp(-score)),
                    _ => score,
                }),
            ];
        }
    }
}
