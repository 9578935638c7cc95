using System.Text.Json.Nodes;
using PeftServer.Cli.Up;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Bench;

/// <summary>A run whose estimate is held to what it takes: sample model or a random one, sample mails or rows made of them, and settings.</summary>
/// <param name="Name">For the table.</param>
/// <param name="Model">Of <see cref="EstimateModel"/>.</param>
/// <param name="Rows"><c>chat</c>, <c>texts</c>, <c>pairs</c> or <c>classes</c>.</param>
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

    /// <summary>Ten more, of other models, lengths, ranks, methods and optimizers: none of what estimates are made of was fitted on them.</summary>
    public static IReadOnlyList<EstimateCase> OthersOnCpu { get; } =
    [
        new("rank-64", "tiny", "chat", """{"peft_type": "LORA", "r": 64, "target_modules": ["q_proj", "v_proj"]}""", """{"per_device_train_batch_size": 32}"""),
        new("lora-wide", "wide", "chat", Lora, """{"per_device_train_batch_size": 8, "packing": true, "max_length": 512}"""),
        new("lora-qwen", "qwen-small", "chat", Lora, """{"per_device_train_batch_size": 16}"""),
        new("checkpoints", "qwen-small", "chat", Lora, """{"per_device_train_batch_size": 32, "gradient_checkpointing": true}"""),
        new("oft", "tiny", "chat", """{"peft_type": "OFT", "oft_block_size": 32, "target_modules": ["q_proj", "v_proj"]}""", """{"per_device_train_batch_size": 8}"""),
        new("orpo", "qwen-small", "pairs", Lora, """{"per_device_train_batch_size": 8}""", "orpo"),
        new("classes-64", "mistral-small", "classes", """{"peft_type": "LORA", "r": 16, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["score"]}""", """{"per_device_train_batch_size": 32, "max_length": 64}""", "classification"),
        new("bf16-wide", "wide", "chat", Lora, """{"per_device_train_batch_size": 8, "bf16": true}"""),
        new("full-lion", "mistral-small", "chat", Full, """{"per_device_train_batch_size": 4, "optim": "lion_32bit"}"""),
        new("texts", "mistral-small", "texts", """{"peft_type": "IA3"}""", """{"per_device_train_batch_size": 4, "packing": true, "max_length": 768, "optim": "adafactor"}""", "pretraining"),
    ];

    /// <summary>The same for a GPU.</summary>
    public static IReadOnlyList<EstimateCase> OthersOnGpu { get; } =
    [
        new("rank-64", "qwen", "chat", """{"peft_type": "LORA", "r": 64, "target_modules": ["q_proj", "v_proj"]}""", """{"per_device_train_batch_size": 6, "packing": true, "max_length": 1024}"""),
        new("mails-96", "qwen", "chat", Lora, """{"per_device_train_batch_size": 96, "optim": "adamw_8bit"}"""),
        new("checkpoints", "qwen", "chat", Lora, """{"per_device_train_batch_size": 8, "packing": true, "max_length": 4096, "gradient_checkpointing": true}"""),
        new("nf4-wide", "mistral", "chat", Lora, """{"per_device_train_batch_size": 3, "packing": true, "max_length": 2048, "quantization": "nf4"}"""),
        new("fp8-wide", "mistral", "chat", Lora, """{"per_device_train_batch_size": 16, "packing": true, "max_length": 512, "quantization": "fp8"}"""),
        new("texts", "mistral", "texts", Lora, """{"per_device_train_batch_size": 2, "packing": true, "max_length": 4096}""", "pretraining"),
        new("prompt", "qwen", "chat", """{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}""", """{"per_device_train_batch_size": 12}"""),
        new("orpo", "qwen", "pairs", Lora, """{"per_device_train_batch_size": 6}""", "orpo"),
        new("classes", "mistral", "classes", """{"peft_type": "LORA", "r": 16, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["score"]}""", """{"per_device_train_batch_size": 24, "max_length": 256}""", "classification"),
        new("full-float32", "qwen", "chat", Full, """{"per_device_train_batch_size": 4, "optim": "adafactor", "bf16": false}"""),
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
            ["model"] = EstimateModel.Folder(Model, root),
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
            return (Rows == "classes" ? new JsonObject { ["text"] = mail, ["label"] = label }
                : Rows == "texts" ? new JsonObject { ["text"] = mail }
                : new JsonObject { ["prompt"] = $"{mail}\n", ["chosen"] = label, ["rejected"] = label == "spam" ? "ham" : "spam" }).ToJsonString();
        }));
        return path;
    }
}
