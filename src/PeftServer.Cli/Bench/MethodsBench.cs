using System.Globalization;
using System.Text.Json.Nodes;
using PeftServer.Cli.Demo;
using PeftServer.Core;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Bench;

/// <summary>
/// Several methods on the sample mails, on a CPU: tiny-llama learns 1,500 mails in batches of 16 and is asked those of the validation file that it has not seen. A row of
/// Markdown a method: answers that are exactly right, time of training, trained parameters, size of the adapter's file.
/// </summary>
internal sealed class MethodsBench(string samples, int? steps, int? questions, int seed)
{
    private readonly string _model = Path.Combine(samples, "models", "tiny-llama");
    private readonly string _mails = Path.Combine(samples, "datasets", "spam");

    /// <summary>The methods, each at a learning rate that it learns steadily at here.</summary>
    public static IReadOnlyList<Method> Methods { get; } =
    [
        new("LoRA", """{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}""", 2e-3, "r=8, all linear layers"),
        new("DoRA", """{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": true, "target_modules": "all-linear"}""", 2e-3, "r=8, all linear layers"),
        new("IA3", """{"peft_type": "IA3", "target_modules": "all-linear", "feedforward_modules": ["down_proj"]}""", 2e-2, "all linear layers"),
        new("OFT", """{"peft_type": "OFT", "oft_block_size": 32, "target_modules": "all-linear"}""", 2e-3, "blocks of 32, all linear layers"),
        new("prompt", """{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}""", 1e-1, "20 virtual tokens"),
        new("full", EstimateCase.Full, 5e-4, "every module a copy that trains, LN_TUNING's way"),
    ];

    public static string Heading(double untrained) => string.Create(CultureInfo.InvariantCulture, $"""
        The base answers {untrained:0.000} exactly.

        | method | learning rate | exact match | training | trained parameters | file |
        | --- | ---: | ---: | ---: | ---: | ---: |
        """);

    /// <summary>Share of right answers without an adapter.</summary>
    public double Base() => ExactMatch(null);

    /// <summary>Trains and asks; a row of the table.</summary>
    public string Run(Method method, double learningRate)
    {
        var run = Directory.CreateTempSubdirectory("peftserver-methods-").FullName;
        try
        {
            var spec = Spec(method, learningRate, run);
            var (trained, seconds) = Train(spec, run);
            var adapter = Path.Combine(run, TrainingSpec.AdapterFolder);
            var bytes = new FileInfo(Path.Combine(adapter, "adapter_model.safetensors")).Length;
            return string.Create(CultureInfo.InvariantCulture,
                $"| {method.Name} ({method.Settings}) | {learningRate:0.####} | {ExactMatch(adapter):0.000} | {seconds:0} s | {trained:N0} | {Size(bytes)} |");
        }
        finally
        {
            Directory.Delete(run, recursive: true);
        }
    }

    private TrainingSpec Spec(Method method, double learningRate, string run)
    {
        var path = Path.Combine(run, TrainingSpec.FileName);
        var training = new JsonObject { ["per_device_train_batch_size"] = 16, ["learning_rate"] = learningRate, ["num_train_epochs"] = 2, ["seed"] = seed, ["save_strategy"] = "no" };
        if (steps is { } most)
        {
            training["max_steps"] = most;
        }

        File.WriteAllText(path, new JsonObject
        {
            ["model"] = _model,
            ["model_name"] = "tiny-llama",
            ["training_file"] = Path.Combine(_mails, "train.jsonl"),
            ["peft"] = JsonNode.Parse(method.Peft),
            ["training"] = training,
            ["device"] = "cpu",
        }.ToJsonString());
        return TrainingSpec.Read(path);
    }

    /// <summary>Trained parameters, and the time from the first event to the last: loading, steps, saving.</summary>
    private static (long Trained, double Seconds) Train(TrainingSpec spec, string run)
    {
        var (first, last) = (0L, 0L);
        using (var events = new EventLog(run, TimeProvider.System, written =>
        {
            first = first == 0 ? written.CreatedAt : first;
            last = written.CreatedAt;
        }))
        {
            new Trainer(spec, run, events, new TrainerControl(), TimeProvider.System).Run();
        }

        using var adapter = spec.Peft.CreateAdapter(PretrainedModel.Plan(spec.Model));
        return (adapter.TrainableCount, (last - first) / 1000.0);
    }

    private double ExactMatch(string? adapter)
    {
        var asked = ChatQuestion.Read(Path.Combine(_mails, "validation.jsonl"), questions);
        var tokenizer = Tokenizer.Load(_model);
        var encoder = new ChatEncoder(tokenizer);
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = _model, Device = "cpu" });
        engine.Loaded.Wait();
        var reference = adapter is null ? null : new AdapterReference(PublicId.Random(16), adapter);
        var stops = AdapterCompanions.StopTokens(adapter ?? _model);
        var answers = Task.WhenAll(asked.Select(async question =>
        {
            var chat = Conversation.Of([.. question.Messages.Select(message => ((string)message!["role"]!, (string)message["content"]!))]);
            var request = new GenerationRequest
            {
                Prompt = encoder.EncodePrompt(chat),
                Adapter = reference,
                Sampling = new SamplingParameters { MaxTokens = 4, Temperature = 0, StopTokens = stops },
            };
            var ids = new List<int>();
            await foreach (var token in engine.Generate(request, CancellationToken.None).ReadAllAsync())
            {
                if (token.Id is { } id)
                {
                    ids.Add(id);
                }
            }

            return tokenizer.Decode([.. ids], skipSpecialTokens: true).Trim();
        })).Result;
        return asked.Zip(answers).Average(pair => pair.First.Label.Trim() == pair.Second ? 1.0 : 0.0);
    }

    private static string Size(long bytes) => bytes < 1_000_000 ? $"{bytes / 1000.0:0} kB" : string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB");

    /// <summary>A method: its name, its <c>peft</c>, its learning rate, and what it is in words.</summary>
    public sealed record Method(string Name, string Peft, double LearningRate, string Settings);
}
