using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Evaluation.Graders;

/// <summary>Embedding models that graders compare texts by, each loaded when it is first asked, in float32.</summary>
/// <param name="folders">Folders of models by name.</param>
/// <param name="device">Where they compute.</param>
public sealed class TextEmbeddings(IReadOnlyDictionary<string, string> folders, Device device) : IDisposable
{
    /// <summary>Tokens that are read of a text where the model's folder says nothing.</summary>
    private const int DefaultLength = 512;

    private readonly Dictionary<string, (SentenceEncoder Encoder, Tokenizer Tokenizer)> _loaded = [];

    /// <summary>The cosine of the angle between the embeddings of two texts, from −1 to 1; 0 where a text has no token.</summary>
    public double Cosine(string model, string one, string other)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var (encoder, tokenizer) = Of(model);
        int[][] rows = [Ids(one), Ids(other)];
        if (rows.Any(row => row.Length == 0))
        {
            return 0;
        }

        using var batch = ForwardBatch.Packed(rows, [], device);
        var vectors = encoder.Embed(batch).to(ScalarType.Float64); // [2, width]
        var lengths = vectors.square().sum(-1).sqrt(); // [2]
        var (dot, scale) = (vectors[0].mul(vectors[1]).sum().item<double>(), lengths[0].item<double>() * lengths[1].item<double>());
        return scale == 0 ? 0 : dot / scale;

        int[] Ids(string text) => [.. tokenizer.EncodeWithOffsets(text, truncation: new TruncationOptions { MaxLength = encoder.MaxLength ?? Math.Min(DefaultLength, encoder.Model.MaxLength) }).Ids];
    }

    public void Dispose()
    {
        foreach (var (encoder, _) in _loaded.Values)
        {
            encoder.Dispose();
        }
    }

    private (SentenceEncoder Encoder, Tokenizer Tokenizer) Of(string model)
    {
        if (!_loaded.TryGetValue(model, out var found))
        {
            var folder = folders.GetValueOrDefault(model) ?? throw new KeyNotFoundException($"embedding_model '{model}' has no folder here. Name it in embedding_models.");
            using (NewDisposeScope())
            {
                found = (SentenceEncoder.Load(folder, device, ScalarType.Float32), Tokenizer.Load(folder));
            }

            _loaded[model] = found;
        }

        return found;
    }
}
