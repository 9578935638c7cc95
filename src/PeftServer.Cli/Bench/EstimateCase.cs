using System.Text.Json.Nodes;
using PeftServer.Cli.Up;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>A run whose estimate is held to what it takes: sample model or a random one, sample mails or rows made of them, and settings.</summary>
/// <param name="Name">For the table.</param>
/// <param name="Model"><c>tiny</c> (the sample), <c>wide</c> (40 million parameters), <c>1b</c>.</param>
/// <param name="Rows"><c>chat</c>, <c>pairs</c> or <c>classes</c>.</param>
/// <param name="Peft">The spec's <c>peft</c>.</param>
/// <param name="Training">The spec's <c>training</c>, beyond the number of steps.</param>
/// <param name="Method">The spec's <c>method</c>.</param>
internal sealed record EstimateCase(string Name, string Model, string Rows, string Peft, string Training, string Method = "supervised")
{
    private const string Lora = """{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}""";

    /// <summary>Every weight trains: LN tuning is a copy of a module that trains, whatever the module.</summary>
    public const string Full = """
        {"peft_type": "LN_TUNING", "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
         "input_layernorm", "post_attention_layernorm", "norm", "embed_tokens", "lm_head"]}
        """;

    /// <summary>Ten runs that differ in all that memory follows from.</summary>
    public static IReadOnlyList<EstimateCase> OnCpu { get; } =
    [
        new("lora", "tiny", "chat", Lora, """{"per_device_train_batch_size": 16}"""),
        new("ia3", "tiny", "chat", """{"peft_type": "IA3"}""", """{"per_device_train_batch_size": 16, "optim": "sgd"}"""),
        new("dora", "tiny", "chat", Lora.Replace("\"r\": 8", "\"r\": 16, \"use_dora\": true", StringComparison.Ordinal), """{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}"""),
        new("prompt", "tiny", "chat", """{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}""", """{"per_device_train_batch_size": 24}"""),
        new("full", "tiny", "chat", Full, """{"per_device_train_batch_size": 8}"""),
        new("packed", "tiny", "chat", Lora, """{"per_device_train_batch_size": 4, "packing": true, "max_length": 1024, "fast": false, "optim": "lion_32bit"}"""),
        new("bf16", "tiny", "chat", Lora, """{"per_device_train_batch_size": 8, "max_length": 128, "bf16": true}"""),
        new("dpo", "tiny", "pairs", Lora, """{"per_device_train_batch_size": 4}""", "dpo"),
        new("classes", "tiny", "classes", """{"peft_type": "LORA", "r": 8, "target_modules": "all-linear", "modules_to_save": ["score"]}""", """{"per_device_train_batch_size": 16}""", "classification"),
        new("wide-full", "wide", "chat", Full, """{"per_device_train_batch_size": 2, "optim": "adafactor"}"""),
    ];

    /// <summary>Runs for a GPU, where tensors count: the hand-written step in its ways, and tensor code.</summary>
    public static IReadOnlyList<EstimateCase> OnGpu { get; } =
    [
        new("lora", "1b", "chat", Lora, """{"per_device_train_batch_size": 4, "packing": true, "max_length": 2048}"""),
        new("lora-32", "1b", "chat", Lora, """{"per_device_train_batch_size": 32, "packing": true, "max_length": 2048}"""),
        new("lora-rows", "1b", "chat", Lora, """{"per_device_train_batch_size": 64}"""),
        new("nf4", "1b", "chat", Lora, """{"per_device_train_batch_size": 8, "packing": true, "max_length": 2048, "quantization": "nf4"}"""),
        new("fp8", "1b", "chat", Lora, """{"per_device_train_batch_size": 8, "packing": true, "max_length": 2048, "quantization": "fp8"}"""),
        new("plain", "1b", "chat", Lora, """{"per_device_train_batch_size": 4, "packing": true, "max_length": 2048, "fast": false}"""),
        new("ia3", "1b", "chat", """{"peft_type": "IA3"}""", """{"per_device_train_batch_size": 16}"""),
        new("dora", "1b", "chat", Lora.Replace("\"r\": 8", "\"r\": 16, \"use_dora\": true", StringComparison.Ordinal), """{"per_device_train_batch_size": 8}"""),
        new("dpo", "1b", "pairs", Lora, """{"per_device_train_batch_size": 8}""", "dpo"),
        new("full", "1b", "chat", Full, """{"per_device_train_batch_size": 4}"""),
    ];

    /// <summary>Makes the run folder in <paramref name="root"/>, beside the model where it is a random one; gives the path of its spec.</summary>
    public string Write(string root, int steps, string device)
    {
        var run = Directory.CreateDirectory(Path.Combine(root, Name)).FullName;
        var training = JsonNode.Parse(Training)!.AsObject();
        training["max_steps"] = steps;
        training["save_strategy"] = "no";
        var spec = new JsonObject
        {
            ["model"] = Model == "tiny" ? SampleModel : Random(Path.Combine(root, $"model-{Model}")),
            ["model_name"] = Model,
            ["training_file"] = WriteRows(run),
            ["peft"] = JsonNode.Parse(Peft),
            ["method"] = new JsonObject { ["type"] = Method },
            ["training"] = training,
            ["device"] = device,
        };
        var path = Path.Combine(run, TrainingSpec.FileName);
        File.WriteAllText(path, spec.ToJsonString());
        return path;
    }

    private static string SampleModel => Path.Combine(Samples.Folder, "models", "tiny-llama");

    /// <summary>The sample mails as rows of the method.</summary>
    private string WriteRows(string folder)
    {
        var mails = Path.Combine(Samples.Folder, "datasets", "spam", "train.jsonl");
        if (Rows == "chat")
        {
            return mails;
        }

        var path = Path.Combine(folder, "rows.jsonl");
        File.WriteAllLines(path, File.ReadLines(mails).Select(line =>
        {
            var messages = JsonNode.Parse(line)!["messages"]!.AsArray();
            var (mail, label) = ((string)messages[^2]!["content"]!, (string)messages[^1]!["content"]!);
            return (Rows == "classes"
                ? new JsonObject { ["text"] = mail, ["label"] = label }
                : new JsonObject { ["prompt"] = $"{mail}\n", ["chosen"] = label, ["rejected"] = label == "spam" ? "ham" : "spam" }).ToJsonString();
        }));
        return path;
    }

    /// <summary>A Llama with random weights in <paramref name="folder"/>, with the sample's tokenizer: made once.</summary>
    private string Random(string folder)
    {
        var (hidden, layers, heads, intermediate, vocabulary, dtype) = Model == "wide" ? (512, 10, 8, 1408, 4096, ScalarType.Float32) : (2048, 16, 32, 8192, 128_256, ScalarType.BFloat16);
        if (File.Exists(Path.Combine(folder, "model.safetensors")))
        {
            return folder;
        }

        Directory.CreateDirectory(folder);
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(SampleModel, "config.json")))!.AsObject();
        foreach (var (name, value) in new (string, int)[]
        {
            ("hidden_size", hidden), ("num_hidden_layers", layers), ("num_attention_heads", heads), ("num_key_value_heads", heads / 4), ("head_dim", hidden / heads),
            ("intermediate_size", intermediate), ("vocab_size", vocabulary), ("max_position_embeddings", 8192),
        })
        {
            config[name] = value;
        }

        config["dtype"] = dtype is ScalarType.Float32 ? "float32" : "bfloat16";
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        foreach (var file in Directory.GetFiles(SampleModel).Where(file => Path.GetFileName(file) is not ("config.json" or "model.safetensors")))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)), overwrite: true);
        }

        using var scope = NewDisposeScope();
        using var spread = 0.02.ToScalar();
        var model = PretrainedModel.Plan(folder);
        SafetensorsWriter.Write(
            Path.Combine(folder, "model.safetensors"),
            model.Weights().Where(weight => !weight.IsBuffer).DistinctBy(weight => weight.Path).ToDictionary(
                weight => weight.Path,
                weight => weight.Shape.Count == 1 ? ones([.. weight.Shape], dtype: dtype) : randn([.. weight.Shape], dtype: dtype).mul_(spread)));
        return folder;
    }
}
