using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>One step of continuing several sequences at once, each with its own adapter and cache.</summary>
internal static class DecodingStep
{
    /// <summary>
    /// Feeds every sequence its next tokens, within the budget of a step: those that decode first, one token each, then prompts,
    /// a long one in pieces. Whoever has nothing left to feed gets a new token.
    /// </summary>
    public static void Run(LanguageModel model, IReadOnlyList<GenerationSequence> running, int maxBatchTokens)
    {
        if (model is Seq2SeqLanguageModel reader)
        {
            Read(reader, [.. running.Where(sequence => sequence.AwaitsSource)], maxBatchTokens);
        }

        var chunks = Schedule([.. running.Where(sequence => !sequence.AwaitsSource && !sequence.IsFinished)], maxBatchTokens);
        foreach (var group in chunks.GroupBy(chunk => model.BatchKey(chunk.Sequence.Adapters)))
        {
            Feed(model, [.. group]);
        }
    }

    /// <summary>
    /// An encoder reads the prompts of those that came last, within the budget of a step and one of them at least; those under one adapter
    /// together.
    /// </summary>
    private static void Read(Seq2SeqLanguageModel model, IReadOnlyList<GenerationSequence> arrived, int budget)
    {
        var taken = arrived.TakeWhile((sequence, i) => (budget -= sequence.Request.Prompt.Count) >= 0 || i == 0).ToList();
        foreach (var group in taken.GroupBy(sequence => sequence.Request.Adapter?.Digest).Select(group => group.ToList()))
        {
            try
            {
                var sources = model.ReadEach(
                    [.. group.Select(sequence => sequence.Request.Prompt.ToArray())], group[0].Adapters, [.. group.Select(sequence => sequence.Request.Task)]);
                for (var i = 0; i < sources.Count; i++)
                {
                    group[i].Read(sources[i]);
                }
            }
            catch (Exception e)
            {
                group.ForEach(sequence => sequence.Fail(e));
            }
        }
    }

    private static void Feed(LanguageModel model, List<(GenerationSequence Sequence, IReadOnlyList<int> Tokens)> chunks)
    {
        try
        {
            using var scope = NewDisposeScope();
            using var batch = ForwardBatch.Cached(
                [.. chunks.Select(chunk => new CachedSequence(
                    chunk.Tokens, chunk.Sequence.Cache!, chunk.Sequence.Adapters, chunk.Sequence.Source, chunk.Sequence.Request.Task))],
                model.Device);
            var hidden = model.Hidden(batch); // [n, hidden]
            var ready = new List<(GenerationSequence Sequence, long Last)>();
            for (var i = 0; i < chunks.Count; i++)
            {
                var (sequence, count) = (chunks[i].Sequence, chunks[i].Tokens.Count);
                PromptScores.Read(model, hidden.narrow(0, batch.Starts[i + 1] - count, count), sequence); // [count, hidden]
                sequence.Fed(count);
                if (sequence.PendingCount == 0 && !sequence.EndsWithPrompt() && !sequence.TakeForced())
                {
                    ready.Add((sequence, batch.Starts[i + 1] - 1));
                }
            }

            if (ready.Count > 0)
            {
                Choose(model, hidden, ready);
            }
        }
        catch (Exception e)
        {
            chunks.ForEach(chunk => chunk.Sequence.Fail(e));
        }
    }

    private static List<(GenerationSequence Sequence, IReadOnlyList<int> Tokens)> Schedule(IReadOnlyList<GenerationSequence> running, int budget)
    {
        var chunks = new List<(GenerationSequence Sequence, IReadOnlyList<int> Tokens)>();
        foreach (var sequence in running.OrderBy(sequence => sequence.PendingCount > 1))
        {
            // Rows of a prompt go in whole, with one token at least; they may exceed the budget of a step that feeds nothing else.
            if (budget <= 0 || (chunks.Count > 0 && budget <= sequence.PromptRows))
            {
                break;
            }

            var tokens = sequence.Peek(Math.Max(1, budget - sequence.PromptRows));
            budget -= tokens.Count + sequence.PromptRows;
            chunks.Add((sequence, tokens));
        }

        // Sequences that share an adapter stand together: one run of tokens through its parts.
        return [.. chunks.OrderBy(chunk => chunk.Sequence.Request.Adapter?.Digest, StringComparer.Ordinal)];
    }

    private static void Choose(LanguageModel model, Tensor hidden, List<(GenerationSequence Sequence, long Last)> ready)
    {
        var lasts = tensor(ready.Select(entry => entry.Last).ToArray(), device: hidden.device);
        var adapters = ready.Select((entry, i) => new AdapterRun(entry.Sequence.Adapters, i, 1)).ToList();
        using var batch = ForwardBatch.Heads(adapters, model.Device, [.. ready.Select(entry => entry.Sequence.Request.Task)]);
        var logits = model.Logits(hidden.index_select(0, lasts), batch).to(ScalarType.Float32); // [m, vocab]
        var likeliest = logits.argmax(-1).cpu().data<long>().ToArray(); // the one device sync of the step
        for (var i = 0; i < ready.Count; i++)
        {
            if (ready[i].Sequence.Candidates is { } candidates)
            {
                ready[i].Sequence.Continue(Likeliest(logits.select(0, i), candidates));
            }
            else if (ready[i].Sequence.IsPlainGreedy)
            {
                ready[i].Sequence.Accept((int)likeliest[i]);
            }
            else
            {
                ready[i].Sequence.Choose(logits.select(0, i).cpu().data<float>().ToArray());
            }
        }
    }

    /// <summary>The <paramref name="count"/> likeliest tokens by their <paramref name="logits"/> [vocab], with their log-probabilities.</summary>
    private static List<(int Token, float LogProbability)> Likeliest(Tensor logits, int count)
    {
        var (values, ids) = F.log_softmax(logits, -1).topk((int)Math.Min(count, logits.size(0)), -1); // [count]
        return [.. ids.cpu().data<long>().ToArray().Select(id => (int)id).Zip(values.cpu().data<float>().ToArray())];
    }
}
