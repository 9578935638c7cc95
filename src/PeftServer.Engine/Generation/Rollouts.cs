using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>An answer that was written for training.</summary>
/// <param name="Ids">Its tokens; the one that ended it is the last, unless it was cut off.</param>
/// <param name="Words">Its tokens without the one that ended it.</param>
/// <param name="IsTruncated">It had all the tokens it may have, and had not ended.</param>
internal sealed record Rollout(int[] Ids, int[] Words, bool IsTruncated);

/// <summary>Writes answers with a model and an adapter in training, in the thread that owns them: the steps of the generation engine, to their end.</summary>
internal sealed class Rollouts(CausalLanguageModel model, Adapter adapter)
{
    /// <summary>Tokens that one step feeds at most, and sequences that are written at once.</summary>
    private const int MaxBatchTokens = 4096, MaxSequences = 128;

    /// <summary>One answer to each prompt.</summary>
    /// <param name="prompts">Prompts, at least one token each.</param>
    /// <param name="sampling">How to choose, for each prompt.</param>
    /// <param name="goesOn">Asked between steps: false gives up, and what is not finished ends as it is.</param>
    public IReadOnlyList<Rollout> Write(IReadOnlyList<int[]> prompts, IReadOnlyList<SamplingParameters> sampling, Func<bool> goesOn)
    {
        using var frozen = no_grad();
        var sequences = prompts.Zip(sampling, (prompt, how) => new GenerationSequence(new GenerationRequest { Prompt = prompt, Sampling = how }, CancellationToken.None)).ToList();
        try
        {
            var waiting = new Queue<GenerationSequence>(sequences);
            var running = new List<GenerationSequence>();
            while ((waiting.Count > 0 || running.Count > 0) && goesOn())
            {
                while (running.Count < MaxSequences && waiting.TryDequeue(out var next))
                {
                    next.Start(model, adapter);
                    running.Add(next);
                }

                DecodingStep.Run(model, running, MaxBatchTokens);
                running.RemoveAll(sequence => sequence.IsFinished);
            }

            return [.. sequences.Select(Read)];
        }
        finally
        {
            sequences.ForEach(sequence => sequence.Dispose());
        }
    }

    private static Rollout Read(GenerationSequence sequence)
    {
        var words = new List<int>();
        while (sequence.Output.TryRead(out var token))
        {
            if (token.Id is { } id)
            {
                words.Add(id);
            }
        }

        if (sequence.Output.Completion is { IsFaulted: true } failed)
        {
            throw failed.Exception.InnerException!;
        }

        return sequence.StopToken is { } stop ? new Rollout([.. words, stop], [.. words], false) : new Rollout([.. words], [.. words], true);
    }
}
