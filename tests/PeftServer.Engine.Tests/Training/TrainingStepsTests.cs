using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Which tier a training gets, and what its event says.</summary>
public sealed class TrainingStepsTests
{
    [Theory]
    [InlineData("llama", "")]
    [InlineData("gemma", "")]
    [InlineData("gemma2", "\"attn_logit_softcapping\": 50.0, \"final_logit_softcapping\": 30.0,")]
    [InlineData("gemma3_text", "")]
    [InlineData("granite", "\"residual_multiplier\": 0.22,")]
    [InlineData("olmo2", "")]
    [InlineData("cohere", "")]
    [InlineData("mixtral", "\"num_local_experts\": 4,")]
    [InlineData("granite", "\"mlp_bias\": true,")]
    [InlineData("starcoder2", "")]
    [InlineData("stablelm", "")]
    [InlineData("phi", "")]
    [InlineData("gpt_neox", "")]
    [InlineData("falcon", "")]
    [InlineData("opt", "")]
    [InlineData("gpt2", "")]
    [InlineData("gptj", "\"rotary_dim\": 8,")]
    public void Create_AFamilyThatTheStepKnows_ReportsTheHandWrittenStep(string type, string fields) =>
        Create(type, fields).ShouldBe((typeof(FastLlamaStep), "Training with the hand-written step."));

    [Theory]
    [InlineData("bloom", "", "bloom has no hand-written step yet")]
    [InlineData("gemma2", "\"hidden_activation\": \"mish\",", "gemma2 has no hand-written step yet")]
    [InlineData("stablelm", "\"qk_layernorm\": true,", "stablelm has no hand-written step yet")]
    [InlineData("phi", "\"qk_layernorm\": true,", "phi has no hand-written step yet")]
    [InlineData("falcon", "\"new_decoder_architecture\": true, \"num_kv_heads\": 2,", "falcon has no hand-written step yet")]
    [InlineData("falcon", "\"alibi\": true,", "falcon has no hand-written step yet")]
    public void Create_WhatItDoesNotKnow_ReportsThePlainCodeAndWhy(string type, string fields, string reason) =>
        Create(type, fields).ShouldBe((typeof(AutogradStep), $"Training with plain tensor code under autograd: {reason}."));

    private static (Type Step, string Report) Create(string type, string fields)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Relative(type, fields, CPU, ScalarType.Float32);
        var config = new LoraConfig { R = 4, TargetModules = ModuleSelector.AllLinear };
        using var adapter = config.CreateAdapter(model);
        adapter.Initialize(0);
        var report = "";
        using var step = TrainingSteps.Create(model, adapter, CPU, new TrainingArguments(), config, new SftSettings(), message => report = message);
        return (step.GetType(), report);
    }
}
