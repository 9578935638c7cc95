using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>What a model makes of the tokens of a prompt, each behind those before it.</summary>
internal static class PromptScores
{
    /// <summary>Rows of logits that are in memory at once: a vocabulary is wide, and a prompt may be long.</summary>
    private const int RowsAtOnce = 256;

    /// <summary>Tells <paramref name="sequence"/>, where it wants to know, what <paramref name="hidden"/> [n, hidden] of its next n tokens foretells.</summary>
    public static void Read(LanguageModel model, Tensor hidden, GenerationSequence sequence)
    {
        var foretold = sequence.Foretold((int)hidden.size(0));
        for (var from = 0; from < foretold.Count; from += RowsAtOnce)
        {
            var ids = foretold.Skip(from).Take(RowsAtOnce).ToArray();
            sequence.Foretell(Of(model, hidden.narrow(0, from, ids.Length), sequence, ids));
        }
    }

    private static List<PromptToken> Of(LanguageModel model, Tensor hidden, GenerationSequence sequence, int[] ids)
    {
        using var scope = NewDisposeScope();
        using var batch = ForwardBatch.Heads([new AdapterRun(sequence.Adapters, 0, ids.Length)], model.Device, [.. ids.Select(_ => sequence.Request.Task)]);
        var scores = F.log_softmax(model.Logits(hidden, batch).to(ScalarType.Float32), -1); // [n, vocab]
        var own = scores.gather(1, tensor(Array.ConvertAll(ids, id => (long)id), device: hidden.device).unsqueeze(1)); // [n, 1]
        var likelier = scores.gt(own).sum(1).cpu().data<long>().ToArray();
        var values = own.cpu().data<float>().ToArray();
        var rivals = Math.Min(sequence.Request.PromptLogProbabilities!.Value, (int)scores.size(1));
        var width = Math.Max(1, rivals);
        var (topValues, topIds) = scores.topk(width, 1); // [n, width]
        var (best, names) = (topValues.cpu().contiguous().data<float>().ToArray(), topIds.cpu().contiguous().data<long>().ToArray());
        return [.. ids.Select((id, i) => new PromptToken(
            id, LogProbabilities.Finite(values[i]), (int)likelier[i] + 1,
            [.. Enumerable.Range(i * width, rivals).Select(at => ((int)names[at], LogProbabilities.Finite(best[at])))]))];
    }
}
