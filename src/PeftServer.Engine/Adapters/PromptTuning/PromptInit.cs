using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.PromptTuning;

/// <summary>Draws the rows of a prompt, or takes them from the model's embeddings.</summary>
internal static class PromptInit
{
    /// <summary>Fills <paramref name="table"/> [rows, width] on the device of the model.</summary>
    public static void Draw(Weight table, PromptTuningInit how, string? text, PretrainedModel model, Generator generator)
    {
        switch (how)
        {
            case PromptTuningInit.Text:
                Embeddings(table, TextIds(text!, (int)table.Shape[0], model), model);
                break;
            case PromptTuningInit.SampleVocab:
                using (var drawn = randint(0, model.Config.VocabSize, [table.Shape[0]], dtype: ScalarType.Int64, generator: generator))
                {
                    Embeddings(table, drawn.data<long>().ToArray(), model);
                }

                break;
            default:
                table.Normal(1, generator, model.Device); // as nn.Embedding starts
                break;
        }
    }

    /// <summary>Sets the rows to the embeddings of tokens as the model takes them up, in float32.</summary>
    public static void Embeddings(Weight table, long[] ids, PretrainedModel model)
    {
        using var scope = NewDisposeScope();
        var embedding = model.TokenEmbedding!;
        var rows = embedding.Weight.Value.index_select(0, tensor(ids, device: model.Device)).to(ScalarType.Float32); // [rows, width]
        table.Set(rows.Times(embedding.LookupScale));
    }

    private static long[] TextIds(string text, int rows, PretrainedModel model)
    {
        var folder = model.Folder ?? throw new AdapterException("prompt_tuning_init", "TEXT needs a model that was loaded from a folder with a tokenizer.");
        var ids = Tokenizer.Load(folder).Encode(text);
        return ids.Length == 0
            ? throw new AdapterException("prompt_tuning_init_text", "The text has no tokens.")
            : [.. Enumerable.Range(0, rows).Select(row => (long)ids[row % ids.Length])];
    }
}
