using System.Text.Json;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// Texts to vectors, as a folder of sentence-transformers describes it: an encoder or decoder, pooling over its tokens, dense layers,
/// normalisation. A folder without <c>modules.json</c> means the mean of its tokens. <see href="https://arxiv.org/abs/1908.10084"/>.
/// </summary>
public sealed class SentenceEncoder : IDisposable
{
    private readonly List<Func<Tensor, Tensor>> _steps = [];
    private readonly List<(Linear Layer, Func<Tensor, Tensor> Act)> _dense = [];
    private Pooling _pooling = new([PoolingMode.Mean]);

    private SentenceEncoder(ClassificationModel model, string folder)
    {
        Model = model;
        MaxLength = ReadMaxLength(folder);
    }

    /// <summary>The model whose states are pooled; adapters attach to it.</summary>
    public ClassificationModel Model { get; }

    /// <summary>Tokens that are read of a text; null: the folder does not say.</summary>
    public int? MaxLength { get; }

    /// <summary>Whether <paramref name="folder"/> is one of sentence-transformers.</summary>
    public static bool IsIn(string folder) => File.Exists(System.IO.Path.Combine(folder, "modules.json"));

    /// <summary>Loads a folder. Throws <see cref="CheckpointException"/>, also for a module that is not known.</summary>
    public static SentenceEncoder Load(string folder, Device device, ScalarType dtype, SharedTensors? shared = null)
    {
        var encoder = new SentenceEncoder((ClassificationModel)PretrainedModel.Load(folder, device, dtype, ModelHead.Features, shared: shared), folder);
        try
        {
            foreach (var (type, path) in Modules(folder))
            {
                encoder.Add(type, System.IO.Path.Combine(folder, path), device, dtype);
            }

            return encoder;
        }
        catch
        {
            encoder.Dispose();
            throw;
        }
    }

    /// <summary>One vector for each sequence, [sequences, width], float32.</summary>
    public Tensor Embed(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var vectors = _pooling.Of(Model.Predict(batch), batch).to(ScalarType.Float32); // [sequences, width]
        return _steps.Aggregate(vectors, (x, step) => step(x)).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        Model.Dispose();
        _dense.SelectMany(entry => entry.Layer.Weights()).ToList().ForEach(weight => weight.Unload());
    }

    private void Add(string type, string folder, Device device, ScalarType dtype)
    {
        switch (type)
        {
            case "Transformer":
                break;
            case "Pooling":
                _pooling = Pooling.Read(folder);
                break;
            case "Normalize":
                _steps.Add(x => F.normalize(x, 2, 1, 1e-12));
                break;
            case "Dense":
                AddDense(folder, device, dtype);
                break;
            default:
                throw new CheckpointException($"modules.json: the module '{type}' is not supported. Supported: Transformer, Pooling, Dense, Normalize.");
        }
    }

    private void AddDense(string folder, Device device, ScalarType dtype)
    {
        var config = PretrainedConfig.Read(folder);
        var hasBias = config.Flag("bias", true);
        var layer = new Linear(config.Int("in_features"), config.Int("out_features"), hasBias);
        var name = config.Text("activation_function", "torch.nn.modules.activation.Tanh");
        var act = name[(name.LastIndexOf('.') + 1)..] switch
        {
            "Identity" => x => x.alias(),
            "Tanh" => x => x.tanh(),
            "ReLU" => x => F.relu(x),
            "GELU" => x => F.gelu(x),
            "Sigmoid" => (Func<Tensor, Tensor>)(x => x.sigmoid()),
            _ => throw config.Unsupported("activation_function", name),
        };
        using var checkpoint = Checkpoint.Open(folder);
        checkpoint.Fill(
            new WeightPlan { Weights = [.. layer.Weights()], OtherNames = [("linear.weight", layer.weight), .. hasBias ? [("linear.bias", layer.bias!)] : Array.Empty<(string, Weight)>()] },
            device, dtype);
        _dense.Add((layer, act));
        _steps.Add(x => act(layer.Frozen(x.to(dtype))).to(ScalarType.Float32));
    }

    private static IEnumerable<(string Type, string Path)> Modules(string folder)
    {
        if (!IsIn(folder))
        {
            return [];
        }

        try
        {
            using var file = JsonDocument.Parse(File.ReadAllBytes(System.IO.Path.Combine(folder, "modules.json")));
            return [.. file.RootElement.EnumerateArray().Select(module =>
            {
                var (type, path) = (module.GetProperty("type").GetString()!, module.GetProperty("path").GetString()!);
                return path.Contains("..", StringComparison.Ordinal) || System.IO.Path.IsPathRooted(path)
                    ? throw new CheckpointException($"modules.json: the path '{path}' leads out of the folder.")
                    : (type[(type.LastIndexOf('.') + 1)..], path);
            })];
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new CheckpointException($"modules.json cannot be read: {e.Message}", e);
        }
    }

    private static int? ReadMaxLength(string folder)
    {
        var path = System.IO.Path.Combine(folder, "sentence_bert_config.json");
        var config = File.Exists(path) ? PretrainedConfig.Parse(File.ReadAllText(path)) : null;
        return config is not null && config.Has("max_seq_length") ? config.Int("max_seq_length") : null;
    }
}
