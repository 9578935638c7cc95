using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Goldens.Tests;

/// <summary>The hand-written step against PEFT itself: gradients of the first step, and the loss of every step of a training.</summary>
public sealed class FastStepCases
{
    private static readonly string[] Names =
    [
        "lora__llama", "lora__llama31", "lora_all_linear__llama", "lora__mistral", "lora__qwen2", "lora__qwen3", "lora__phi3", "lora__smollm3", "lora__gemma", "lora__gemma2",
        "lora__gemma3_text", "lora__granite", "lora__olmo2", "lora__cohere", "lora__mixtral", "lora__qwen3_moe", "lora__starcoder2", "lora__stablelm", "lora__phi", "lora__gpt_neox",
        "lora__gptj", "lora__gpt2", "lora_all_linear__gpt2", "lora__opt", "lora_all_linear__opt", "lora__falcon",
    ];

    public static TheoryData<string, bool> Cases =>
    [
        .. from name in Names
           from keep in new[] { true, false }
           select new TheoryDataRow<string, bool>(name, keep),
    ];

    [Theory]
    [MemberData(nameof(Cases))]
    public void ForwardBackward_TheTrainingOfACase_GivesPeftsNumbers(string name, bool keep)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var scope = NewDisposeScope();
        using var model = (CausalLanguageModel)PretrainedModel.Load(
            GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(Path.Combine(golden.Folder, "init"), model);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        using var step = new FastLlamaStep(model, adapter, new TensorBlockKernels(), keep ? ActivationPlan.Keep : ActivationPlan.Lean);
        var batch = Batch(golden);
        using var wide = golden["losses"].to(ScalarType.Float64);
        foreach (var (i, expected) in wide.data<double>().ToArray().Index())
        {
            using var inner = NewDisposeScope();
            var (loss, _) = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null);
            if (i == 0)
            {
                AdapterCases.CheckGradients(golden, adapter);
            }

            optimizer.Step(golden.Meta.GetProperty("lr").GetDouble());
            optimizer.ZeroGrad();
            step.AdapterChanged();
            (loss.item<float>() / batch.Targets.Length).ShouldBe((float)expected, 1e-4 * expected, $"loss of step {i}");
        }
    }

    /// <summary>The rows of a case without padding, with the labels it trains.</summary>
    private static SftBatch Batch(Golden golden)
    {
        var (rows, places) = golden.Rows();
        var labels = golden["labels"].data<long>().ToArray();
        return SftBatch.Of(rows.Select((tokens, row) => new TrainingRow(tokens, [.. places[row].Select(place => labels[place] != -100)], row + 1)));
    }
}
