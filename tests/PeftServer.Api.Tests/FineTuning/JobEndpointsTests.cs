using System.Net;
using System.Text.Json;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Adapters;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.FineTuning;

public sealed class JobEndpointsTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    private const string Jobs = "/v1/fine_tuning/jobs";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Create_TheLeast_IsOpenAIsJobWithEveryDefault()
    {
        var file = await server.UploadChatsAsync();

        var (status, job) = await server.PostAsync(Jobs, $$"""{"model": "tiny-llama", "training_file": "{{file}}"}""");

        status.ShouldBe(HttpStatusCode.OK);
        job.GetProperty("id").GetString().ShouldStartWith("ftjob-");
        job.GetProperty("object").GetString().ShouldBe("fine_tuning.job");
        job.GetProperty("model").GetString().ShouldBe("tiny-llama");
        job.GetProperty("status").GetString().ShouldBe("validating_files");
        job.GetProperty("training_file").GetString().ShouldBe(file);
        job.GetProperty("error").GetRawText().ShouldBe("{}");
        job.GetProperty("seed").GetInt32().ShouldBe(42);
        job.GetProperty("result_files").GetArrayLength().ShouldBe(0);
        job.GetProperty("created_at").TryGetInt64(out _).ShouldBeTrue();
        foreach (var name in new[] { "finished_at", "fine_tuned_model", "validation_file", "trained_tokens", "estimated_finish", "metadata", "progress" })
        {
            job.GetProperty(name).ValueKind.ShouldBe(JsonValueKind.Null, name);
        }

        job.GetProperty("organization_id").GetString().ShouldStartWith("org-");
        job.GetProperty("hyperparameters").GetRawText().ShouldBe("""{"batch_size":8,"learning_rate_multiplier":1,"n_epochs":3}""");
        job.GetProperty("method").GetProperty("supervised").GetProperty("hyperparameters").GetRawText().ShouldBe(job.GetProperty("hyperparameters").GetRawText());
        job.GetProperty("peft").GetProperty("peft_type").GetString().ShouldBe("LORA");
        job.GetProperty("peft").GetProperty("task_type").GetString().ShouldBe("CAUSAL_LM");
        job.GetProperty("training").GetProperty("learning_rate").GetDouble().ShouldBe(2e-4);
        (await server.GetAsync($"{Jobs}/{job.GetProperty("id").GetString()}")).Body.GetRawText().ShouldBe(job.GetRawText());
    }

    [Fact]
    public async Task Create_OpenAIsHyperparameters_AreTrainingArguments()
    {
        var file = await server.UploadChatsAsync();

        var (_, job) = await server.PostAsync(Jobs, $$$$"""
            {"model": "tiny-llama", "training_file": "{{{{file}}}}", "validation_file": "{{{{file}}}}", "suffix": "spam", "seed": 7, "metadata": {"team": "mail"}, "integrations": [],
             "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 16, "learning_rate_multiplier": 10}}
             }}
            """);

        var training = job.GetProperty("training");
        training.GetProperty("num_train_epochs").GetDouble().ShouldBe(2);
        training.GetProperty("per_device_train_batch_size").GetInt32().ShouldBe(16);
        training.GetProperty("learning_rate").GetDouble().ShouldBe(2e-3, 1e-12);
        training.GetProperty("seed").GetInt32().ShouldBe(7);
        job.GetProperty("hyperparameters").GetRawText().ShouldBe("""{"batch_size":16,"learning_rate_multiplier":10,"n_epochs":2}""");
        job.GetProperty("user_provided_suffix").GetString().ShouldBe("spam");
        job.GetProperty("metadata").GetProperty("team").GetString().ShouldBe("mail");
        job.GetProperty("validation_file").GetString().ShouldBe(file);
    }

    [Theory]
    [InlineData("dpo", """{"beta": 0.2, "loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}""", "beta", "0.2", "CAUSAL_LM")]
    [InlineData("dpo", """{"hyperparameters": {"beta": 0.4, "n_epochs": 2}}""", "beta", "0.4", "CAUSAL_LM")]
    [InlineData("cpo", "{}", "cpo_alpha", "1", "CAUSAL_LM")]
    [InlineData("simpo", """{"simpo_gamma": 1}""", "beta", "2", "CAUSAL_LM")]
    [InlineData("orpo", "{}", "beta", "0.1", "CAUSAL_LM")]
    [InlineData("kto", """{"desirable_weight": 2}""", "desirable_weight", "2", "CAUSAL_LM")]
    [InlineData("reward", """{"center_rewards_coefficient": 0.01}""", "center_rewards_coefficient", "0.01", "SEQ_CLS")]
    [InlineData("grpo", """{"grader": {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}", "operation": "eq"}}""", "num_generations", "8", "CAUSAL_LM")]
    [InlineData("pretraining", "{}", "label_smoothing_factor", "0", "CAUSAL_LM")]
    [InlineData("classification", """{"labels": ["ham", "spam"]}""", "labels", "[\"ham\",\"spam\"]", "SEQ_CLS")]
    [InlineData("token_classification", "{}", "labels", "null", "TOKEN_CLS")]
    [InlineData("question_answering", """{"doc_stride": 64}""", "doc_stride", "64", "QUESTION_ANS")]
    [InlineData("seq2seq", "{}", "max_target_length", "null", "SEQ_2_SEQ_LM")]
    [InlineData("embedding", """{"symmetric": true}""", "scale", "20", "FEATURE_EXTRACTION")]
    public async Task Create_Method_IsStoredAndShownWithItsDefaults(string type, string settings, string field, string value, string task)
    {
        var id = await server.CreateJobAsync($$""", "method": {"type": "{{type}}", "{{type}}": {{settings}}}""");

        var (_, job) = await server.GetAsync($"{Jobs}/{id}");
        job.GetProperty("method").GetProperty("type").GetString().ShouldBe(type);
        job.GetProperty("method").GetProperty(type).GetProperty(field).GetRawText().ShouldBe(value);
        job.GetProperty("method").GetProperty(type).GetProperty("hyperparameters").GetRawText().ShouldBe(job.GetProperty("hyperparameters").GetRawText());
        job.GetProperty("peft").GetProperty("task_type").GetString().ShouldBe(task);
    }

    [Fact]
    public async Task Create_Auto_IsShownUntilItIsPicked()
    {
        var id = await server.CreateJobAsync(""", "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": "auto", "batch_size": 4, "learning_rate_multiplier": "auto"}}}""");

        var (_, job) = await server.GetAsync($"{Jobs}/{id}");
        job.GetProperty("hyperparameters").GetRawText().ShouldBe("""{"batch_size":4,"learning_rate_multiplier":"auto","n_epochs":"auto"}""");
        (await server.Services.GetRequiredService<JobStore>().FindAsync("default", id, Token))!.AutoSettings.ShouldBe(["n_epochs", "learning_rate_multiplier"]);
    }

    [Fact]
    public async Task Create_AutoInTrainingAndPeft_IsKeptUntilItIsPicked()
    {
        var id = await server.CreateJobAsync(""", "training": {"optim": "auto", "warmup_ratio": "auto", "learning_rate": "auto", "max_steps": 3}, "peft": {"peft_type": "LORA", "r": "auto"}""");

        var job = (await server.Services.GetRequiredService<JobStore>().FindAsync("default", id, Token))!;
        job.AutoSettings.ShouldBe(["training.optim", "training.warmup_ratio", "learning_rate_multiplier", "peft.r"]);
        job.Training.MaxSteps.ShouldBe(3);
    }

    [Theory]
    [InlineData(""", "training": {"seed": "auto"}""", "training.seed")]
    [InlineData(""", "peft": {"peft_type": "IA3", "r": "auto"}""", "peft.r")]
    public async Task Create_AutoWhereThereIsNone_Returns400NamingTheField(string more, string field)
    {
        var (status, fault) = await server.PostAsync(Jobs, $$"""{"model": "tiny-llama", "training_file": "{{await server.UploadChatsAsync()}}"{{more}}}""");

        status.ShouldBe(HttpStatusCode.BadRequest);
        fault.GetProperty("error").GetProperty("param").GetString().ShouldBe(field);
    }

    [Fact]
    public async Task PauseAndResume_ThroughTheApi_SayWhereTheJobStands()
    {
        var id = await server.CreateJobAsync();
        var (early, fault) = await server.PostAsync($"{Jobs}/{id}/pause", "{}");
        early.ShouldBe(HttpStatusCode.Conflict);
        fault.GetProperty("error").GetProperty("code").GetString().ShouldBe("job_not_pausable");

        await server.StartJobAsync(id);
        (await server.PostAsync($"{Jobs}/{id}/pause", "{}")).Body.GetProperty("status").GetString().ShouldBe("running"); // until its worker has seen to it
        (await server.PostAsync($"{Jobs}/{id}/resume", "{}")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.Services.GetRequiredService<JobStore>().FindAsync("default", id, Token))!.DesiredState.ShouldBeNull();
        (await server.PostAsync($"{Jobs}/ftjob-none/resume", "{}")).Status.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task Create_PeftAndTraining_AreStoredAsTheyAre()
    {
        var id = await server.CreateJobAsync(""", "peft": {"r": 16, "target_modules": ["q_proj"], "peft_type": "LORA"}, "training": {"lr_scheduler_type": "cosine", "max_steps": 5}""");

        var row = await server.Services.GetRequiredService<JobStore>().FindAsync("default", id, Token);

        var lora = row!.Peft.ShouldBeOfType<PeftServer.Engine.Adapters.Lora.LoraConfig>();
        lora.R.ShouldBe(16);
        lora.TargetModules.ShouldBe(ModuleSelector.Of("q_proj"));
        row.Training.MaxSteps.ShouldBe(5);
        row.Request.ShouldContain("\"q_proj\"");
    }

    [Fact]
    public async Task Create_SettingsOfAnotherJob_AreTakenAsTheyAreShown()
    {
        var (_, job) = await server.GetAsync($"{Jobs}/{await server.CreateJobAsync(""", "peft": {"peft_type": "LORA", "target_modules": "all-linear"}""")}");

        var id = await server.CreateJobAsync($$""", "peft": {{job.GetProperty("peft")}}, "training": {{job.GetProperty("training")}}""");

        var (_, again) = await server.GetAsync($"{Jobs}/{id}");
        again.GetProperty("peft").GetRawText().ShouldBe(job.GetProperty("peft").GetRawText());
        again.GetProperty("training").GetRawText().ShouldBe(job.GetProperty("training").GetRawText());
    }

    [Theory]
    [InlineData("""{"training_file": "FILE"}""", "model", "missing")]
    [InlineData("""{"model": "tiny-llama"}""", "training_file", "missing")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "sufix": "x"}""", "sufix", "Did you mean 'suffix'?")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "learning_rate": 1}""", "learning_rate", "Did you mean 'training.learning_rate'?")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "lora_aplha": 8}}""", "peft.lora_aplha", "Did you mean 'lora_alpha'?")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORRA"}}""", "peft.peft_type", "LORA")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"r": 8}}""", "peft.peft_type", "missing")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "r": "eight"}}""", "peft.r", "whole number")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "r": 0}}""", "peft.r", "peft.r is 0")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "inference_mode": true}}""", "peft.inference_mode", "Remove it")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "base_model_name_or_path": "/etc"}}""", "peft.base_model_name_or_path", "Remove it")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "use_qalora": "yes"}}""", "peft.use_qalora", "")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "init_lora_weights": "magic"}}""", "peft.init_lora_weights", "gaussian")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "target_modules": "(["}}""", "peft.target_modules", "regular expression")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "XLORA", "adapters": {"0": "ft:nobody"}}}""", "peft.adapters.0", "no fine-tuned model of tiny-llama")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "XLORA", "adapters": {"first": "ft:nobody"}}}""", "peft.adapters", "as PEFT names the experts")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "arrow_config": {"top_k": 1, "task_adapter_names": ["../secret"]}}}""", "peft.arrow_config.task_adapter_names[0]", "no fine-tuned model of tiny-llama")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "arrow_config": {}}}""", "peft.arrow_config", "task_adapter_names")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "XLORA"}}""", "peft.adapters", "ft:")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "CARTRIDGE", "num_frozen_tokens": 20}}""", "peft.num_frozen_tokens", "Freeze fewer")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT"}}""", "peft.prompt_tuning_init_text", "needs a prompt_tuning_init_text")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "PREFIX_TUNING", "init_weights": "one"}}""", "peft.init_weights", "zero")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "CPT", "cpt_token_ids": [1, 2], "cpt_mask": [1]}}""", "peft.cpt_token_ids", "the same length")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": {"learning_rate": 500}}""", "training.learning_rate", "between 0 and 100")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": {"lr_scheduler_type": "cosin"}}""", "training.lr_scheduler_type", "did you mean 'cosine'?")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "reinforcement"}}""", "method.type", "grpo")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": {"load_best_model_at_end": true}}""", "training.load_best_model_at_end", "validation_file")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": {"eval_strategy": "no", "early_stopping_patience": 2}}""", "training.eval_strategy", "early_stopping_patience")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": {"save_total_limit": 0}}""", "training.save_total_limit", "training.save_total_limit is 0")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "kto": {"beta": 0.2}}}""", "method.kto", "method.type is 'dpo'")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "dpo": {"beta": -1}}}""", "method.dpo.beta", "method.dpo.beta is -1")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "dpo": {"bta": 1}}}""", "method.dpo.bta", "Did you mean 'beta'?")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "dpo": {"loss_type": "sigmoidal"}}}""", "method.dpo.loss_type", "method.dpo.loss_type")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "dpo": {"beta": 0.3, "hyperparameters": {"beta": 0.2}}}}""", "method.dpo.beta", "say the same thing")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1}}}, "training": {"num_train_epochs": 1}}""", "method.dpo.hyperparameters.n_epochs", "'training.num_train_epochs'")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "grpo"}}""", "method.grpo.grader", "grader")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "grpo", "grpo": {"grader": {"type": "python", "source": "1"}}}}""", "method.grpo.grader.type", "refused")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "grpo", "grpo": {"grader": {"type": "string_chek"}}}}""", "method.grpo.grader.type", "string_check")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "classification"}, "peft": {"peft_type": "LORA", "task_type": "CAUSAL_LM"}}""", "peft.task_type", "SEQ_CLS")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "classification", "classification": {"labels": ["a"]}}}""", "method.classification.labels", "at least two")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1.5}}}}""", "method.supervised.hyperparameters.n_epochs", "from 1 to 50")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "hyperparameters": {"batch_size": "many"}}""", "hyperparameters.batch_size", "auto")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "hyperparameters": {"n_epochs": 1}, "training": {"num_train_epochs": 1}}""", "hyperparameters.n_epochs", "'training.num_train_epochs'")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "seed": 1, "training": {"seed": 1}}""", "seed", "'training.seed'")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "seed": -1}""", "seed", "from 0")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "suffix": "a:b"}""", "suffix", "letters")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "suffix": "a\u0000b"}""", "suffix", "U+0000")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "suffix": "\ud800"}""", null, "no valid Unicode")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "\ud800": 1}""", null, "no valid Unicode")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "metadata": {"a": "\u0000"}}""", "metadata.a", "U+0000")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "peft": {"peft_type": "LORA", "alpha_pattern": {"q_proj": 1e999}}}""", "peft.alpha_pattern.q_proj", "range of numbers")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "integrations": [{"type": "wandb"}]}""", "integrations", "not supported")]
    [InlineData("""{"model": "gpt-nonexistent", "training_file": "FILE"}""", "model", "Model gpt-nonexistent is not available for fine-tuning or does not exist.")]
    [InlineData("""{"model": "../models/tiny-llama", "training_file": "FILE"}""", "model", "not available")]
    [InlineData("""{"model": "tiny-llama", "training_file": "file-none"}""", "training_file", "POST /v1/files")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "validation_file": "file-none"}""", "validation_file", "POST /v1/files")]
    [InlineData("""{"model": "tiny-llama", "training_file": 5}""", "training_file", "a string, not 5")]
    [InlineData("""{"model": "tiny-llama", "training_file": "FILE", "training": null, "peft": {"peft_type": "LORA", "r": null}}""", "peft.r", "must not be null")]
    [InlineData("""[]""", null, "must be an object")]
    [InlineData("""null""", null, "must be an object")]
    [InlineData("""{"model": """, null, "line 1, byte")]
    [InlineData("""{"model": "a", "model": "b"}""", null, "not valid JSON")]
    [InlineData("", null, "not valid JSON")]
    public async Task Create_WrongRequest_Returns400NamingFieldAndRemedy(string json, string? param, string remedy)
    {
        var file = await server.UploadChatsAsync();

        var (status, body) = await server.PostAsync(Jobs, json.Replace("FILE", file, StringComparison.Ordinal));

        status.ShouldBe(HttpStatusCode.BadRequest, body.ToString());
        var error = body.GetProperty("error");
        error.EnumerateObject().Select(member => member.Name).Take(4).ShouldBe(["message", "type", "param", "code"]);
        error.GetProperty("type").GetString().ShouldBe("invalid_request_error");
        error.GetProperty("param").GetString().ShouldBe(param);
        error.GetProperty("message").GetString()!.ShouldContain(remedy);
    }

    [Fact]
    public async Task Create_SeveralFaults_AreAllInTheDetails()
    {
        var (_, body) = await server.PostAsync(Jobs, """{"modle": "x", "training_file": 1, "peft": {"peft_type": "LORA", "rr": 8, "lora_dropout": "no"}}""");

        var error = body.GetProperty("error");
        error.GetProperty("total").GetInt32().ShouldBe(5);
        error.GetProperty("details").EnumerateArray().Select(fault => fault.GetProperty("param").GetString())
            .ShouldBe(["modle", "training_file", "peft.rr", "peft.lora_dropout", "model"], ignoreOrder: true);
    }

    [Fact]
    public async Task Create_HugeBody_Returns413()
    {
        var (status, body) = await server.PostAsync(Jobs, $$"""{"model": "{{new string('x', 9 << 20)}}"}""");

        status.ShouldBe(HttpStatusCode.RequestEntityTooLarge);
        body.GetProperty("error").GetProperty("code").GetString().ShouldBe("request_too_large");
    }

    [Fact]
    public async Task Create_BytesThatAreNoUtf8_Returns400()
    {
        using var content = new ByteArrayContent([.. """{"model": "tiny-llama", "suffix": "x"""u8, 0xff, 0xfe, .. "\"}"u8]);
        content.Headers.ContentType = new("application/json");

        using var response = await server.Client.PostAsync(Jobs, content, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task Create_AHundredThousandUnknownFields_AreCountedAndTheFirst100Told()
    {
        var fields = string.Join(',', Enumerable.Range(0, 100_000).Select(i => $"\"field_number_{i}\": 1"));

        var (_, body) = await server.PostAsync(Jobs, $$"""{"model": "tiny-llama", "training_file": "x", {{fields}}}""");

        body.GetProperty("error").GetProperty("total").GetInt32().ShouldBe(100_000);
        body.GetProperty("error").GetProperty("details").GetArrayLength().ShouldBe(100);
    }

    [Fact]
    public async Task Create_DeepJson_Returns400()
    {
        var (status, _) = await server.PostAsync(Jobs, string.Concat(Enumerable.Repeat("[", 10_000)));

        status.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task Create_SentAgainAfterALostAnswer_IsTheSameJob()
    {
        var json = $$"""{"model": "tiny-llama", "training_file": "{{await server.UploadChatsAsync()}}", "seed": 11}""";

        var (_, first) = await server.PostAsync(Jobs, json, ("X-Stainless-Retry-Count", "0"));
        var (_, retry) = await server.PostAsync(Jobs, json, ("X-Stainless-Retry-Count", "1"));
        var (_, another) = await server.PostAsync(Jobs, json, ("X-Stainless-Retry-Count", "0"));

        retry.GetProperty("id").GetString().ShouldBe(first.GetProperty("id").GetString());
        another.GetProperty("id").GetString().ShouldNotBe(first.GetProperty("id").GetString());
    }

    [Fact]
    public async Task Create_IdempotencyKey_MakesOneJobHoweverOftenAndAtOnce()
    {
        var json = $$"""{"model": "tiny-llama", "training_file": "{{await server.UploadChatsAsync()}}"}""";

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => server.PostAsync(Jobs, json, ("Idempotency-Key", "one"))));
        var (status, other) = await server.PostAsync(Jobs, json.Replace('}', ' ') + """, "seed": 2}""", ("Idempotency-Key", "one"));

        answers.ShouldAllBe(answer => answer.Status == HttpStatusCode.OK);
        answers.Select(answer => answer.Body.GetProperty("id").GetString()).Distinct().Count().ShouldBe(1);
        status.ShouldBe(HttpStatusCode.Conflict);
        other.GetProperty("error").GetProperty("param").GetString().ShouldBe("Idempotency-Key");
    }

    [Theory]
    [InlineData("GET", "")]
    [InlineData("POST", "/cancel")]
    [InlineData("GET", "/events")]
    [InlineData("GET", "/checkpoints")]
    public async Task UnknownJob_Returns404InOpenAIsShape(string method, string path)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), $"{Jobs}/ftjob-none{path}");

        using var response = await server.Client.SendAsync(request, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.NotFound);
        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error");
        error.GetProperty("message").GetString().ShouldBe("Could not find fine tune: ftjob-none");
        error.GetProperty("code").GetString().ShouldBe("fine_tune_not_found");
    }

    [Fact]
    public async Task List_PagesAndFilters_GiveWhatWasAsked()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var mail = await own.CreateJobAsync(""", "metadata": {"team": "mail", "run": "1"}""");
        var chat = await own.CreateJobAsync(""", "metadata": {"team": "chat"}""");
        var bare = await own.CreateJobAsync();

        Ids(await own.GetAsync(Jobs)).ShouldBe([bare, chat, mail]);
        Ids(await own.GetAsync($"{Jobs}?limit=1&after={bare}")).ShouldBe([chat]);
        Ids(await own.GetAsync($"{Jobs}?metadata[team]=mail&metadata[run]=1")).ShouldBe([mail]);
        Ids(await own.GetAsync($"{Jobs}?metadata%5Bteam%5D=chat")).ShouldBe([chat]);
        Ids(await own.GetAsync($"{Jobs}?metadata[team]=mail&metadata[run]=2")).ShouldBeEmpty();
        Ids(await own.GetAsync($"{Jobs}?metadata=null")).ShouldBe([bare]);
        (await own.GetAsync($"{Jobs}?limit=1")).Body.GetProperty("has_more").GetBoolean().ShouldBeTrue();
        (await own.GetAsync($"{Jobs}?metadata=x")).Status.ShouldBe(HttpStatusCode.BadRequest);
        (await own.GetAsync($"{Jobs}?after=ftjob-none")).Status.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task Cancel_WaitingJob_IsCancelledAtOnceAndAgainTheSame()
    {
        var id = await server.CreateJobAsync();

        var (status, job) = await server.PostAsync($"{Jobs}/{id}/cancel", "");
        var (again, _) = await server.PostAsync($"{Jobs}/{id}/cancel", "");

        status.ShouldBe(HttpStatusCode.OK);
        job.GetProperty("status").GetString().ShouldBe("cancelled");
        job.GetProperty("finished_at").ValueKind.ShouldBe(JsonValueKind.Number);
        again.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Cancel_FinishedJob_Returns409ThatIsNotToBeRetried()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var id = await own.CreateJobAsync();
        var lease = await own.StartJobAsync(id);
        await own.WriteAsync(lease, transaction => transaction.Fail(new JobError("trainer_crashed", "Its last words.")));

        using var response = await own.Client.PostAsync($"{Jobs}/{id}/cancel", null, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        response.Headers.GetValues("x-should-retry").ShouldBe(["false"]);
        var (_, job) = await own.GetAsync($"{Jobs}/{id}");
        job.GetProperty("status").GetString().ShouldBe("failed");
        job.GetProperty("error").GetRawText().ShouldBe("""{"code":"trainer_crashed","message":"Its last words.","param":null}""");
    }

    [Fact]
    public async Task Get_RunningJob_ShowsItsProgress()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var id = await own.CreateJobAsync();
        var lease = await own.StartJobAsync(id);
        await own.MeasureAsync(lease, "Step 3/10", new { step = 3, total_steps = 10, train_loss = 0.5, learning_rate = 1e-3, eta_seconds = 21.5 });

        var (_, job) = await own.GetAsync($"{Jobs}/{id}");

        job.GetProperty("status").GetString().ShouldBe("running");
        var progress = job.GetProperty("progress");
        progress.GetProperty("step").GetInt32().ShouldBe(3);
        progress.GetProperty("total_steps").GetInt32().ShouldBe(10);
        progress.GetProperty("train_loss").GetDouble().ShouldBe(0.5);
        progress.GetProperty("eta_seconds").GetDouble().ShouldBe(21.5);
        progress.GetProperty("attempt").GetInt32().ShouldBe(1);
    }

    [Fact]
    public async Task Get_StrictNull_SaysNullWhereThereIsNoError()
    {
        await using var strict = await ApiServer.StartAsync(cluster, ("Api:StrictNull", "true"));
        var id = await strict.CreateJobAsync();

        var (_, job) = await strict.GetAsync($"{Jobs}/{id}");

        job.GetProperty("error").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    private static IEnumerable<string> Ids((HttpStatusCode Status, JsonElement Body) page) =>
        page.Body.GetProperty("data").EnumerateArray().Select(job => job.GetProperty("id").GetString()!);
}
