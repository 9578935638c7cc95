using System.Diagnostics;
using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>
/// The quick start's training phase on a CPU, for a comparison with another program on the same cores: tiny-llama, the spam mails in the order of the file, batches
/// of 16, prompts masked and the mail's text taken as transformers takes it, LoRA r=8 on all linear layers, AdamW at 2e-3 with decay 0.01, clipped at 1, float32. Speed is in
/// real tokens, over all steps but the first five.
/// </summary>
internal static class CpuBench
{
    private const int Batch = 16;
    private const int WarmUp = 5;

    public static Dictionary<string, object> Run(string samples, string tier, int steps, int threads)
    {
        var folder = Path.Combine(samples, "models", "tiny-llama");
        set_num_threads(threads);
        using var model = (CausalLanguageModel)PretrainedModel.Load(folder, CPU, ScalarType.Float32);
        using var adapter = new LoraConfig { R = 8, LoraAlpha = 16, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);
        adapter.Initialize(0);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        using var step = TrainBench.Step(tier, null, model, adapter, CPU, null);
        var rows = Rows(folder, Path.Combine(samples, "datasets", "spam", "train.jsonl"));

        var (losses, tokens, seconds) = (new List<double>(), 0L, 0.0);
        for (var i = 0; i < steps; i++)
        {
            using var scope = NewDisposeScope();
            var started = Stopwatch.GetTimestamp();
            var batch = SftBatch.Of(Enumerable.Range(i * Batch, Batch).Select(row => rows[row % rows.Count]));
            optimizer.ZeroGrad();
            var (loss, _) = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null);
            optimizer.ClipGradients(1);
            optimizer.Step(2e-3);
            step.AdapterChanged();
            losses.Add(loss.item<float>() / batch.Targets.Length);
            if (i >= WarmUp)
            {
                tokens += batch.TokenCount;
                seconds += Stopwatch.GetElapsedTime(started).TotalSeconds;
            }
        }

        return new()
        {
            ["step"] = step.Description,
            ["dtype"] = "float32",
            ["threads"] = get_num_threads(),
            ["tokens_per_second"] = Math.Round(tokens / Math.Max(1e-9, seconds)),
            ["seconds"] = Math.Round(seconds, 1),
            ["first_loss"] = Math.Round(losses[0], 4),
            ["last_loss"] = Math.Round(losses.TakeLast(5).Average(), 4),
        };
    }

    /// <summary>Every token behind the prompt trains, what the template puts after an answer too.</summary>
    private static List<TrainingRow> Rows(string model, string file)
    {
        var encoder = new ChatEncoder(Tokenizer.Load(model), strictSpecialTokens: false);
        return [.. File.ReadLines(file).Select((line, i) =>
        {
            using var row = JsonDocument.Parse(line);
            var chat = row.RootElement.GetProperty("messages").EnumerateArray()
                .Select(message => (message.GetProperty("role").GetString()!, message.GetProperty("content").GetString()!)).ToArray();
            var (whole, prompt) = (encoder.EncodePrompt(Conversation.Of(chat), addGenerationPrompt: false), encoder.EncodePrompt(Conversation.Of(chat.AsSpan(..^1))));
            return new TrainingRow(whole, [.. whole.Select((_, at) => at >= prompt.Length)], i + 1);
        })];
    }
}
