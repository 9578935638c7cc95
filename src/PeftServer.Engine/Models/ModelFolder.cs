using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// Writes a model as <c>save_pretrained</c> of transformers leaves one: config.json, the tokenizer's files, safetensors, in several files with an index where one would be too
/// large. What is written is a base again, to train on from and to serve.
/// </summary>
public static class ModelFolder
{
    /// <summary>Bytes of one file of weights at most, as transformers' default has it.</summary>
    public const long DefaultShardBytes = 5_000_000_000;

    /// <summary>Endings of weights, and of what speaks of them.</summary>
    private static readonly string[] Left = [".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".index.json", ".md"];

    /// <summary>Endings of class names, by head.</summary>
    private static readonly Dictionary<ModelHead, string> Endings = new()
    {
        [ModelHead.SequenceClassification] = "ForSequenceClassification",
        [ModelHead.TokenClassification] = "ForTokenClassification",
        [ModelHead.QuestionAnswering] = "ForQuestionAnswering",
        [ModelHead.Features] = "Model",
    };

    /// <summary>Writes <paramref name="model"/> to <paramref name="folder"/>, which is made and must not be there.</summary>
    /// <param name="model">Loaded, with nothing packed.</param>
    /// <param name="head">The head that it was loaded with.</param>
    /// <param name="source">The folder that it came from: what stands there beside config.json and weights is taken over.</param>
    /// <param name="folder">Where it goes. It is complete once it is there.</param>
    /// <param name="shardBytes">Bytes of one file of weights at most; a tensor that is larger has one to itself.</param>
    public static void Write(PretrainedModel model, ModelHead head, string source, string folder, long shardBytes = DefaultShardBytes)
    {
        if (!File.Exists(Path.Combine(source, "config.json")))
        {
            throw new CheckpointException($"{source} has no config.json, so no model folder can be written from it. A GGUF file can be trained on and served, but not written again.");
        }

        var unfinished = $"{folder}.{Environment.ProcessId}.tmp";
        try
        {
            Directory.CreateDirectory(unfinished);
            CopyRest(source, unfinished);
            File.WriteAllText(Path.Combine(unfinished, "config.json"), Config(model, head, source).ToJsonString(PeftJson.Indented));
            WriteWeights(model, unfinished, shardBytes);
            Directory.Move(unfinished, folder);
        }
        finally
        {
            if (Directory.Exists(unfinished))
            {
                Directory.Delete(unfinished, recursive: true);
            }
        }
    }

    /// <summary>Tokenizer, chat template, settings of generation and of pooling, as they are.</summary>
    private static void CopyRest(string source, string folder)
    {
        foreach (var path in Directory.EnumerateFiles(source, "*", SearchOption.AllDirectories))
        {
            var name = Path.GetRelativePath(source, path);
            var isOfModel = Path.GetFileName(path) == "config.json" ? Path.GetDirectoryName(name) is "" : Array.Exists(Left, ending => name.EndsWith(ending, StringComparison.OrdinalIgnoreCase));
            if (!isOfModel && !name.Split(Path.DirectorySeparatorChar).Any(part => part[0] == '.'))
            {
                Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(folder, name))!);
                File.Copy(path, Path.Combine(folder, name));
            }
        }
    }

    private static JsonObject Config(PretrainedModel model, ModelHead head, string source)
    {
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "config.json")))!.AsObject();
        var dtype = model.Dtype.ToString().ToLowerInvariant();
        config["dtype"] = dtype;
        if (config.ContainsKey("torch_dtype"))
        {
            config["torch_dtype"] = dtype;
        }

        config.Remove("quantization_config");
        if (!model.OtherNames().Any() && model.Config.Flag("tie_word_embeddings", true) && model.OutputHead is not null)
        {
            config["tie_word_embeddings"] = false;
        }

        if (Endings.TryGetValue(head, out var ending) && ModelCatalog.HeadOf(model.Config) != head)
        {
            config["architectures"] = new JsonArray($"{Stem(model.Config)}{ending}");
        }

        if (model is ClassificationModel { Config: var classes } && head is not ModelHead.Features)
        {
            config["id2label"] = new JsonObject(classes.Labels.Select((label, id) => KeyValuePair.Create(id.ToString(CultureInfo.InvariantCulture), (JsonNode?)label)));
            config["label2id"] = new JsonObject(classes.Labels.Select((label, id) => KeyValuePair.Create(label, (JsonNode?)id)));
        }

        return config;
    }

    /// <summary>The name of an architecture without its head: LlamaForCausalLM is a Llama.</summary>
    private static string Stem(PretrainedConfig config)
    {
        var name = config.Architectures is [var first, ..]
            ? first : throw new CheckpointException("config.json names no architectures, so the class of the new head has no name. Add \"architectures\".");
        var at = name.IndexOf("For", 1, StringComparison.Ordinal);
        return at > 0 ? name[..at] : name.Replace("LMHeadModel", "", StringComparison.Ordinal).Replace("Model", "", StringComparison.Ordinal);
    }

    private static void WriteWeights(PretrainedModel model, string folder, long shardBytes)
    {
        var tensors = Tensors(model).ToList();
        var (shards, room) = (new List<List<(string Name, Func<Tensor> Value)>>(), 0L);
        foreach (var (name, bytes, value) in tensors)
        {
            if (shards.Count == 0 || bytes > room)
            {
                shards.Add([]);
                room = shardBytes;
            }

            shards[^1].Add((name, value));
            room -= bytes;
        }

        var places = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var (index, shard) in shards.Index())
        {
            using var scope = NewDisposeScope();
            var name = shards.Count == 1 ? SafetensorsCheckpoint.SingleFile : FormattableString.Invariant($"model-{index + 1:D5}-of-{shards.Count:D5}.safetensors");
            SafetensorsWriter.Write(Path.Combine(folder, name), shard.ToDictionary(entry => entry.Name, entry => entry.Value()));
            shard.ForEach(entry => places[entry.Name] = name);
        }

        if (shards.Count > 1)
        {
            var index = new
            {
                metadata = new { total_size = tensors.Sum(entry => entry.Bytes) },
                weight_map = places,
            };
            File.WriteAllText(Path.Combine(folder, SafetensorsCheckpoint.Index), JsonSerializer.Serialize(index, PeftJson.Indented));
        }
    }

    /// <summary>The weights under the names of a checkpoint; experts one by one, as other programs look for them.</summary>
    private static IEnumerable<(string Name, long Bytes, Func<Tensor> Value)> Tensors(PretrainedModel model)
    {
        var pieces = model.WeightPlan().Pieces;
        foreach (var weight in model.Weights())
        {
            var bytes = weight.ElementCount * weight.Value.ElementSize;
            if (!pieces.TryGetValue(weight, out var rows))
            {
                yield return (weight.Path, bytes, () => weight.Value.alias());
                continue;
            }

            foreach (var (row, names) in rows.Rows.Index())
            {
                var height = weight.Shape[1] / names.Count;
                foreach (var (part, name) in names.Index())
                {
                    yield return (name, bytes / rows.Rows.Count / names.Count, () => weight.Value.select(0, row).narrow(0, part * height, height));
                }
            }
        }
    }
}
