using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Models;

/// <summary>config.json of models that people use, as their authors wrote them: read in full, and counted as the Hub counts their weights.</summary>
public sealed class RealConfigTests
{
    public static TheoryData<string, long, string> Configs => new()
    {
        { "meta-llama/Llama-3.2-1B", 1_235_814_400, """
            {"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,"eos_token_id":128001,"head_dim":64,"hidden_act":"silu",
            "hidden_size":2048,"initializer_range":0.02,"intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama","num_attention_heads":32,
            "num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,
            "original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0",
            "use_cache":true,"vocab_size":128256}
            """ },
        { "Qwen/Qwen2.5-0.5B", 494_032_768, """
            {"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151643,"hidden_act":"silu","hidden_size":896,"initializer_range":0.02,
            "intermediate_size":4864,"max_position_embeddings":32768,"max_window_layers":24,"model_type":"qwen2","num_attention_heads":14,"num_hidden_layers":24,"num_key_value_heads":2,
            "rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":32768,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1","use_cache":true,
            "use_mrope":false,"use_sliding_window":false,"vocab_size":151936}
            """ },
        { "Qwen/Qwen3-0.6B", 596_049_920, """
            {"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151645,"head_dim":128,"hidden_act":"silu",
            "hidden_size":1024,"initializer_range":0.02,"intermediate_size":3072,"max_position_embeddings":40960,"max_window_layers":28,"model_type":"qwen3","num_attention_heads":16,
            "num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"sliding_window":null,"tie_word_embeddings":true,
            "torch_dtype":"bfloat16","transformers_version":"4.51.0","use_cache":true,"use_sliding_window":false,"vocab_size":151936}
            """ },
        { "mistralai/Mixtral-8x7B-v0.1", 46_702_792_704, """
            {"architectures":["MixtralForCausalLM"],"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,
            "max_position_embeddings":32768,"model_type":"mixtral","num_attention_heads":32,"num_experts_per_tok":2,"num_hidden_layers":32,"num_key_value_heads":8,
            "num_local_experts":8,"output_router_logits":false,"rms_norm_eps":1e-05,"rope_theta":1000000.0,"router_aux_loss_coef":0.02,"sliding_window":null,
            "tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.36.0.dev0","use_cache":true,"vocab_size":32000}
            """ },
        { "google/gemma-2-2b", 2_614_341_888, """
            {"architectures":["Gemma2ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"attn_logit_softcapping":50.0,"bos_token_id":2,"cache_implementation":"hybrid",
            "eos_token_id":1,"final_logit_softcapping":30.0,"head_dim":256,"hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","hidden_size":2304,
            "initializer_range":0.02,"intermediate_size":9216,"max_position_embeddings":8192,"model_type":"gemma2","num_attention_heads":8,"num_hidden_layers":26,
            "num_key_value_heads":4,"pad_token_id":0,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"torch_dtype":"float32",
            "transformers_version":"4.42.4","use_cache":true,"vocab_size":256000}
            """ },
        { "microsoft/Phi-3-mini-4k-instruct", 3_821_079_552, """
            {"_name_or_path":"Phi-3-mini-4k-instruct","architectures":["Phi3ForCausalLM"],"attention_dropout":0.0,"auto_map":{"AutoConfig":"configuration_phi3.Phi3Config"},
            "bos_token_id":1,"embd_pdrop":0.0,"eos_token_id":32000,"hidden_act":"silu","hidden_size":3072,"initializer_range":0.02,"intermediate_size":8192,
            "max_position_embeddings":4096,"model_type":"phi3","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"original_max_position_embeddings":4096,
            "pad_token_id":32000,"resid_pdrop":0.0,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"sliding_window":2047,"tie_word_embeddings":false,
            "torch_dtype":"bfloat16","transformers_version":"4.40.2","use_cache":true,"attention_bias":false,"vocab_size":32064}
            """ },
        { "openai-community/gpt2", 124_439_808, """
            {"activation_function":"gelu_new","architectures":["GPT2LMHeadModel"],"attn_pdrop":0.1,"bos_token_id":50256,"embd_pdrop":0.1,"eos_token_id":50256,
            "initializer_range":0.02,"layer_norm_epsilon":1e-05,"model_type":"gpt2","n_ctx":1024,"n_embd":768,"n_head":12,"n_layer":12,"n_positions":1024,"resid_pdrop":0.1,
            "summary_activation":null,"summary_first_dropout":0.1,"summary_proj_to_labels":true,"summary_type":"cls_index","summary_use_proj":true,
            "task_specific_params":{"text-generation":{"do_sample":true,"max_length":50}},"vocab_size":50257}
            """ },
        { "EleutherAI/pythia-70m", 70_426_624, """
            {"architectures":["GPTNeoXForCausalLM"],"bos_token_id":0,"eos_token_id":0,"hidden_act":"gelu","hidden_size":512,"initializer_range":0.02,"intermediate_size":2048,
            "layer_norm_eps":1e-05,"max_position_embeddings":2048,"model_type":"gpt_neox","num_attention_heads":8,"num_hidden_layers":6,"rotary_emb_base":10000,"rotary_pct":0.25,
            "tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.24.0","use_cache":true,"use_parallel_residual":true,"vocab_size":50304}
            """ },
        { "facebook/opt-125m", 125_239_296, """
            {"_name_or_path":"facebook/opt-125m","activation_dropout":0.0,"activation_function":"relu","architectures":["OPTForCausalLM"],"attention_dropout":0.0,"bos_token_id":2,
            "do_layer_norm_before":true,"dropout":0.1,"eos_token_id":2,"ffn_dim":3072,"hidden_size":768,"init_std":0.02,"layerdrop":0.0,"max_position_embeddings":2048,
            "model_type":"opt","num_attention_heads":12,"num_hidden_layers":12,"pad_token_id":1,"prefix":"</s>","torch_dtype":"float16","transformers_version":"4.21.0.dev0",
            "use_cache":true,"vocab_size":50272,"word_embed_proj_dim":768}
            """ },
        { "bigscience/bloom-560m", 559_214_592, """
            {"apply_residual_connection_post_layernorm":false,"attention_dropout":0.0,"attention_softmax_in_fp32":true,"architectures":["BloomForCausalLM"],"bias_dropout_fusion":true,
            "bos_token_id":1,"eos_token_id":2,"pad_token_id":3,"unk_token_id":0,"hidden_dropout":0.0,"initializer_range":0.02,"layer_norm_epsilon":1e-05,"masked_softmax_fusion":true,
            "model_type":"bloom","n_embed":1024,"n_inner":null,"n_layer":24,"num_attention_heads":16,"offset_alibi":100,"pretraining_tp":1,"seq_length":2048,
            "skip_bias_add":true,"skip_bias_add_qkv":false,"transformers_version":"4.20.0","use_cache":true,"vocab_size":250880}
            """ },
        { "bigcode/starcoder2-3b", 3_030_371_328, """
            {"architectures":["Starcoder2ForCausalLM"],"attention_dropout":0.1,"bos_token_id":0,"embedding_dropout":0.1,"eos_token_id":0,"hidden_act":"gelu_pytorch_tanh",
            "hidden_size":3072,"initializer_range":0.018042,"intermediate_size":12288,"max_position_embeddings":16384,"mlp_type":"default","model_type":"starcoder2",
            "norm_epsilon":1e-05,"norm_type":"layer_norm","num_attention_heads":24,"num_hidden_layers":30,"num_key_value_heads":2,"residual_dropout":0.1,
            "rope_theta":999999.4420358813,"sliding_window":4096,"transformers_version":"4.37.0.dev0","use_bias":true,"use_cache":true,"vocab_size":49152}
            """ },
        { "FacebookAI/roberta-base", 124_697_433, """
            {"architectures":["RobertaForMaskedLM"],"attention_probs_dropout_prob":0.1,"bos_token_id":0,"eos_token_id":2,"hidden_act":"gelu","hidden_dropout_prob":0.1,
            "hidden_size":768,"initializer_range":0.02,"intermediate_size":3072,"layer_norm_eps":1e-05,"max_position_embeddings":514,"model_type":"roberta",
            "num_attention_heads":12,"num_hidden_layers":12,"pad_token_id":1,"type_vocab_size":1,"vocab_size":50265}
            """ },
        { "distilbert/distilbert-base-uncased", 66_985_530, """
            {"activation":"gelu","architectures":["DistilBertForMaskedLM"],"attention_dropout":0.1,"dim":768,"dropout":0.1,"hidden_dim":3072,"initializer_range":0.02,
            "max_position_embeddings":512,"model_type":"distilbert","n_heads":12,"n_layers":6,"pad_token_id":0,"qa_dropout":0.1,"seq_classif_dropout":0.2,
            "sinusoidal_pos_embds":false,"tie_weights_":true,"transformers_version":"4.10.0.dev0","vocab_size":30522}
            """ },
        { "google-t5/t5-small", 60_506_624, """
            {"architectures":["T5ForConditionalGeneration"],"d_ff":2048,"d_kv":64,"d_model":512,"decoder_start_token_id":0,"dropout_rate":0.1,"eos_token_id":1,
            "initializer_factor":1.0,"is_encoder_decoder":true,"layer_norm_epsilon":1e-06,"model_type":"t5","n_positions":512,"num_heads":8,"num_layers":6,"output_past":true,
            "pad_token_id":0,"relative_attention_num_buckets":32,"task_specific_params":{"summarization":{"num_beams":4}},"vocab_size":32128}
            """ },
        { "google/flan-t5-small", 76_961_152, """
            {"architectures":["T5ForConditionalGeneration"],"d_ff":1024,"d_kv":64,"d_model":512,"decoder_start_token_id":0,"dropout_rate":0.1,"eos_token_id":1,
            "feed_forward_proj":"gated-gelu","initializer_factor":1.0,"is_encoder_decoder":true,"layer_norm_epsilon":1e-06,"model_type":"t5","n_positions":512,
            "num_decoder_layers":8,"num_heads":6,"num_layers":8,"output_past":true,"pad_token_id":0,"relative_attention_max_distance":128,"relative_attention_num_buckets":32,
            "tie_word_embeddings":false,"transformers_version":"4.23.1","use_cache":true,"vocab_size":32128}
            """ },
        { "facebook/bart-base", 139_420_416, """
            {"_name_or_path":"bart-base","activation_dropout":0.1,"activation_function":"gelu","add_bias_logits":false,"add_final_layer_norm":false,
            "architectures":["BartForConditionalGeneration"],"attention_dropout":0.1,"bos_token_id":0,"classif_dropout":0.1,"classifier_dropout":0.0,"d_model":768,
            "decoder_attention_heads":12,"decoder_ffn_dim":3072,"decoder_layerdrop":0.0,"decoder_layers":6,"decoder_start_token_id":2,"dropout":0.1,"early_stopping":true,
            "encoder_attention_heads":12,"encoder_ffn_dim":3072,"encoder_layerdrop":0.0,"encoder_layers":6,"eos_token_id":2,"forced_eos_token_id":2,"forced_bos_token_id":0,
            "gradient_checkpointing":false,"init_std":0.02,"is_encoder_decoder":true,"max_position_embeddings":1024,"model_type":"bart","no_repeat_ngram_size":3,
            "normalize_before":false,"normalize_embedding":true,"num_beams":4,"num_hidden_layers":6,"pad_token_id":1,"scale_embedding":false,"torch_dtype":"float32",
            "use_cache":true,"vocab_size":50265}
            """ },
        { "microsoft/deberta-v3-base", 183_831_552, """
            {"architectures":["DebertaV2Model"],"model_type":"deberta-v2","attention_probs_dropout_prob":0.1,"hidden_act":"gelu","hidden_dropout_prob":0.1,"hidden_size":768,
            "initializer_range":0.02,"intermediate_size":3072,"max_position_embeddings":512,"relative_attention":true,"position_buckets":256,"norm_rel_ebd":"layer_norm",
            "share_att_key":true,"pos_att_type":"p2c|c2p","layer_norm_eps":1e-7,"max_relative_positions":-1,"position_biased_input":false,"num_attention_heads":12,
            "num_hidden_layers":12,"type_vocab_size":0,"vocab_size":128100}
            """ },
    };

    [Theory]
    [MemberData(nameof(Configs))]
    public void Plan_OfRealConfig_CountsItsParameters(string name, long parameters, string config) =>
        PretrainedModel.Plan(PretrainedConfig.Parse(config)).ParameterCount.ShouldBe(parameters, name);

    [Theory]
    [InlineData("\"attention_logit_softcapping\": 20.0", "attention_logit_softcapping")]
    [InlineData("\"embedding_multiplier\": 2.0", "embedding_multiplier")]
    [InlineData("\"num_local_experts\": 4", "num_local_experts")]
    [InlineData("\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}", "quantization_config")]
    [InlineData("\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2.0, \"mscale\": 0.5}", "rope_parameters.mscale")]
    [InlineData("\"rope_parameters\": {\"rope_type\": \"spiral\"}", "rope_type")]
    [InlineData("\"layer_types\": [\"full_attention\", \"linear_attention\"]", "layer_types")]
    public void Plan_FieldThatChangesTheMathsUnread_IsAnErrorThatNamesIt(string field, string name)
    {
        var config = PretrainedConfig.Parse($$"""
            {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 8, {{field}}}
            """);

        Should.Throw<CheckpointException>(() => PretrainedModel.Plan(config)).Message.ShouldContain(name);
    }
}
